"""Relative flatness of one linear layer."""

import numpy as np
import torch
from torch import Tensor, nn

from ssgd_analysis.curvature import HessianOperator
from ssgd_analysis.curvature.estimates.probes import BLOCK
from ssgd_analysis.curvature.operators.sampling import Quotients, quotients
from ssgd_analysis.curvature.products.products import differentiable
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.layer_edits import is_weighted
from ssgd_analysis.weights import filters_of

EXACT = 8192  # products with the layer's block that are made for an exact value, at most
PROBES = 256


@metric(
    "curvature of the last layer weighted by the products of its rows",
    invariant_to=("layer", "batchnorm", "permutation", "folding"),
    needs=("a linear layer or convolution",),
)
def relative_flatness(context: MetricContext, *, layer: str = "") -> Measurement:
    """κ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr(H_{s,s'}), rows w_s of one layer's weight matrix W, S × D.

    H_{s,s'} is the D × D block of the Hessian between rows s and s'; a row is what feeds one
    output unit: of a convolution, transposed or not, a filter. With W = UΣVᵀ it is the trace of
    (UΣ ⊗ I)ᵀ H (UΣ ⊗ I), summed exactly by one product with the layer's own block for each
    singular value and column; the graph before the layer is not walked for them. A layer that
    would need more than 8192 (a head of 100 classes on 512 features) takes 256 Rademacher probes
    of that trace instead, and ``probes`` of the settings says so (0: exact).

    Of the last layer it does not see layer scale or BatchNorm of what comes before; it does see
    the scale of single neurons of the layer below, and that of the logits.

    Args:
        context: the problem.
        layer: a module with a ``weight``, or a parameter, by name; default: the linear layer or
            convolution that is used last.

    Returns:
        Nats; the error is that of sampling the examples where the value is exact, else that of
        the probes. The cost counts a product with the layer's block as one of the whole, though it
        is less: the more so, the nearer the layer is to the outputs.

    Raises:
        InputError: no such layer, or a weight that is no matrix or does not require gradients.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.relative_flatness(problem).value, 3)  # ‖w‖² Tr H = 2 · 5
        10.0

    Reference:
        Petzka et al. 2021 (arXiv 2001.00939), definition 3; their released script computes the
        upper bound ‖W‖² Tr(H) instead.
    """
    name, weight = _named(context.problem, layer) if layer else _last(context)
    problem = context.problem
    operator = HessianOperator(problem.restricted([name]), options=context.options)
    operator.deadline = context.deadline
    (filters,) = filters_of(problem.model, [weight])
    matrix = filters.rows(filters.moving(weight.detach()))
    # where each of its entries, row by row, stands in the weight
    positions = filters.rows(torch.arange(weight.numel()).reshape(weight.shape)).flatten()
    order = positions.argsort().to(weight.device)
    left, strengths, _ = torch.linalg.svd(matrix.double(), full_matrices=False)
    factor = left * strengths  # UΣ, shape (S, rank): its square is WWᵀ
    probes = 0 if factor.shape[1] * matrix.shape[1] <= EXACT else PROBES
    if probes:
        factor = factor @ left.T  # the root without U's free signs: like models, like samples
    factor = factor.to(operator.dtype)
    size = factor.shape[1] * matrix.shape[1]
    generator = context.generator("relative_flatness")
    found: list[Quotients] = []
    for first in range(0, probes or size, BLOCK):
        shape = (size, min(BLOCK, (probes or size) - first))
        inner = torch.zeros(shape, dtype=operator.dtype, device=operator.device)
        if probes:
            inner.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        else:
            inner[first:].fill_diagonal_(1)  # the next unit vectors
        block = (factor @ inner.reshape(factor.shape[1], -1)).reshape(matrix.numel(), -1)
        found.append(quotients(operator, block[order])[1][0])
    each = Quotients.joined(found)
    if not np.isfinite(each.values).all():
        raise WorkError("the Hessian's products are not finite at these weights")
    context.pay(products=operator.products)
    settings = {"layer": name, "probes": probes, "seed": context.seed}
    if probes:
        return of_draws(each.mean().tolist(), {**settings, "error": "probes"})
    return of_batches(context, each.values.sum(axis=1).tolist(), settings)


def _named(problem: Problem, layer: str) -> tuple[str, Tensor]:
    """The weight of a layer, or the parameter, of that name, and the parameter's name."""
    modules = dict(problem.model.named_modules())
    wanted = getattr(modules.get(layer), "weight", None)
    for name, parameter in problem.parameters.items():
        if (parameter is wanted or name == layer) and parameter.ndim >= 2:
            return name, parameter
    matrices = ", ".join(
        name for name, parameter in problem.parameters.items() if parameter.ndim >= 2
    )
    raise InputError(
        f"layer {layer!r} has no weight matrix that requires gradients; the ones"
        f" that do: {matrices or 'none'}"
    )


def _last(context: MetricContext) -> tuple[str, Tensor]:
    """The weight of the linear layer or convolution that a batch goes through last."""
    problem = context.problem
    own = {id(parameter): name for name, parameter in problem.parameters.items()}
    used: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, *_: used.append(module))
        for module in problem.model.modules()
        if is_weighted(module) and id(getattr(module, "weight", None)) in own
    ]
    try:
        with differentiable(problem):  # no fused or compiled layers, which call no module
            last: dict[int, nn.Module] = {}
            for batch in problem.batches:
                problem.batch_loss(batch)
                last |= {id(module): module for module in used[-1:]}
        context.pay(forwards=1)
    finally:
        for handle in handles:
            handle.remove()
    if not used:
        raise InputError(
            "no linear layer or convolution with a weight of its own is used: name a layer with"
            " layer="
        )
    if len(last) > 1:
        raise InputError("batches end in different layers: name a layer with layer=")
    weight = used[-1].weight
    assert isinstance(weight, Tensor)
    return own[id(weight)], weight
