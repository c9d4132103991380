"""The largest eigenvalue of a diagonal block of the Hessian, in units of the block's weights."""

import dataclasses

from ssgd_analysis.curvature import BlockDiagonalOperator, block_eigenpairs
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric


@metric(
    "largest over parameter tensors of squared norm times largest eigenvalue of the block",
    invariant_to=("layer", "batchnorm", "permutation"),
)
def layer_lambda_max(context: MetricContext, *, tol: float = 1e-3) -> Measurement:
    """max_l ‖w_l‖² λ_max(H_ll), l over the parameter tensors: weights and biases apart.

    Apart, because rescaling a layer leaves the next one's bias as it is. All blocks are searched
    in the same sweeps over the data. Not invariant to the scale of single neurons.

    Args:
        context: the problem.
        tol: relative residual of each block's eigenpair.

    Returns:
        Nats; the error is that of sampling the examples, for the block that is largest. Details:
        ``parameters``, each tensor's ‖w_l‖² λ_max(H_ll), and ``largest``, which one it is. The cost
        counts a product for every block, though it is less than one of the whole.

    Raises:
        InputError: a tolerance that is not positive.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.layer_lambda_max(problem).value, 3)  # ‖w‖² λ_max = 2 · 4
        8.0

    Reference:
        Petzka et al. 2021 (arXiv 2001.00939); Andriushchenko et al. 2023 (arXiv 2302.07011),
        section 2, on normalising curvature by the layers' norms.
    """
    blocks = BlockDiagonalOperator(context.operator, tensors=True)
    spectra = block_eigenpairs(
        blocks,
        list(blocks.layers.values()),
        1,
        tol=tol,
        smallest=False,
        generator=context.generator("layer_lambda_max"),
    )
    context.pay(products=sum(spectrum.products for spectrum in spectra))
    scales = [float(parameter.detach().double().norm()) ** 2 for parameter in context.parameters]
    pairs = [spectrum.largest[0] for spectrum in spectra]
    values = [scale * pair.value for scale, pair in zip(scales, pairs, strict=True)]
    rows = [
        {"name": name, "value": value, "residual": pair.residual}
        for name, value, pair in zip(blocks.layers, values, pairs, strict=True)
    ]
    top = values.index(max(values))
    each = scales[top] * spectra[top].quotients.values[:, 0]
    found = of_batches(context, each.tolist(), {"tol": tol, "seed": context.seed})
    details = {"largest": rows[top]["name"], "parameters": rows}
    return dataclasses.replace(found, value=values[top], details=details)
