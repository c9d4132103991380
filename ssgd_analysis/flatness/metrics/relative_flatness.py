"""Relative flatness of one linear layer."""

import numpy as np
import torch
from torch import Tensor, nn

from ssgd_analysis.curvature import HessianOperator
from ssgd_analysis.curvature.probes import BLOCK
from ssgd_analysis.curvature.sampling import quotients
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement, of_batches, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.problem import Problem

EXACT = 20_000  # products with the layer's block that are made for an exact value, at most
PROBES = 32
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@metric
def relative_flatness(bench: Bench, *, layer: str = "") -> Measurement:
    """κ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr(H_{s,s'}), rows w_s of one layer's weight matrix W, S × D.

    H_{s,s'} is the D × D block of the Hessian between rows s and s'; a convolution's filters are
    its rows. Exactly: with W = Σ_r σ_r u_r v_rᵀ, κ = Σ_r Σ_j σ_r² (u_r e_jᵀ)ᵀ H (u_r e_jᵀ), one
    product of the layer's own block for each r ≤ min(S, D) and j ≤ D: the graph before the layer is
    not walked. Layers that would need more than 20,000 of them (a head of 1000 classes) take
    Rademacher probes over j instead, and ``probes`` of the settings says so (0: exact).

    Of the last layer it does not see layer scale or BatchNorm of what comes before; it does see
    the scale of single neurons of the layer below, and that of the logits.

    Args:
        bench: the problem.
        layer: a module with a ``weight``, or a parameter, by name; default: the linear layer or
            convolution that is used last.

    Returns:
        Nats; the error is that of sampling the examples where the value is exact, else that of
        the probes.

    Raises:
        InputError: no such layer, or a weight that is no matrix or does not require gradients.
        WorkError: a product is not finite.

    Reference:
        Petzka et al. 2021 (arXiv 2001.00939), definition 3; their released script computes the
        upper bound ‖W‖² Tr(H) instead.
    """
    name, weight = _named(bench.problem, layer) if layer else _last(bench.problem)
    problem = bench.problem
    own = Problem(problem.model, problem.loss, problem.batches, layers=[name])
    operator = HessianOperator.of(own, options=bench.options)
    matrix = weight.detach().reshape(len(weight), -1)
    rows, strengths, _ = torch.linalg.svd(matrix, full_matrices=False)
    squares = strengths.double().square().cpu().numpy()
    columns = matrix.shape[1]
    exact = len(squares) * columns <= EXACT
    table = np.zeros((len(problem.batches), columns if exact else PROBES))
    for vector, square in zip(rows.T, squares, strict=True):
        if square <= 0:
            continue
        generator = bench.generator("relative_flatness")  # the same z for every r
        for first in range(0, table.shape[1], BLOCK):
            places = range(first, min(first + BLOCK, table.shape[1]))
            inputs = _inputs(operator, columns, places, exact, generator)
            block = (vector[:, None, None] * inputs).reshape(matrix.numel(), -1)
            table[:, first : places.stop] += square * quotients(operator, block)[1][0].values
    if not np.isfinite(table).all():
        raise WorkError("relative_flatness: the Hessian's products are not finite here")
    bench.pay(products=operator.products * matrix.numel() / problem.n_parameters)
    settings = {"layer": name, "probes": 0 if exact else PROBES, "seed": bench.seed}
    if exact:
        return of_batches(bench, table.sum(axis=1).tolist(), settings)
    values = np.array(problem.shares) @ table
    return of_draws(values.tolist(), {**settings, "error": "probes"})


def _inputs(
    operator: HessianOperator,
    columns: int,
    places: range,
    exact: bool,
    generator: torch.Generator,
) -> Tensor:
    """Unit vectors e_j for the j given, or as many probes, shape (D, len(places))."""
    found = torch.zeros(columns, len(places), dtype=operator.dtype, device=operator.device)
    if not exact:
        return found.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    for index, place in enumerate(places):
        found[place, index] = 1
    return found


def _named(problem: Problem, layer: str) -> tuple[str, Tensor]:
    """The weight of a layer, or the parameter, of that name, and the parameter's name."""
    modules = dict(problem.model.named_modules())
    wanted = getattr(modules.get(layer), "weight", None)
    for name, parameter in problem.parameters.items():
        if (parameter is wanted or name == layer) and parameter.ndim >= 2:
            return name, parameter
    known = ", ".join(name for name, parameter in problem.parameters.items() if parameter.ndim >= 2)
    raise InputError(
        f"relative_flatness: layer {layer!r} has no weight matrix that requires gradients; those"
        f" that do: {known or 'none'}"
    )


def _last(problem: Problem) -> tuple[str, Tensor]:
    """The weight of the linear layer or convolution that a batch goes through last."""
    own = {id(parameter): name for name, parameter in problem.parameters.items()}
    used: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, *_: used.append(module))
        for module in problem.model.modules()
        if isinstance(module, LINEAR) and id(getattr(module, "weight", None)) in own
    ]
    try:
        with problem.evaluating(), torch.no_grad():
            problem.batch_loss(problem.batches[0])
    finally:
        for handle in handles:
            handle.remove()
    if not used:
        raise InputError(
            "relative_flatness: no linear layer or convolution with a weight of its own is used:"
            " name one by layer="
        )
    weight = used[-1].weight
    assert isinstance(weight, Tensor)
    return own[id(weight)], weight
