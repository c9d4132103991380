"""How far the largest eigenvalue of the Hessian stands above the fifth."""

import dataclasses

import torch

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import spectrum

PLACE = 5


@metric(
    "largest eigenvalue of the Hessian over the fifth",
    invariant_to=("permutation",),
    flatter=None,
    needs=("five parameters",),
)
def spectral_norm_ratio(context: MetricContext, *, tol: float = 1e-3) -> Measurement:
    """λ₁/λ₅ of the Hessian, the largest eigenvalue over the fifth largest.

    A shape of the spectrum, not its size: one where the five are equal. The error over examples
    is that of the ratio to first order, from the batches' Rayleigh quotients of both vectors;
    the samples are each batch's first-order ratio.

    Args:
        context: the problem.
        tol: relative residual of the eigenpairs.

    Returns:
        A number without unit, at least one; the error is that of sampling the examples.

    Raises:
        InputError: fewer than five parameters, or a fifth eigenvalue that is not positive beyond
            its residual and rounding: there is no such ratio.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.arange(1.0, 6.0)), torch.nn.Linear(5, 1, bias=False)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.spectral_norm_ratio(problem).value, 3)  # eigenvalues 10, …, 0.4
        25.0

    Reference:
        Foret et al. 2021 (arXiv 2010.01412), who print it beside λ₁ as a proxy of sharpness.
    """
    found = spectrum(context, PLACE, tol)
    if len(found.largest) < PLACE:
        raise InputError(
            f"the ratio needs five eigenvalues, so at least five parameters, not"
            f" {context.problem.n_parameters}"
        )
    first, fifth = found.largest[0], found.largest[PLACE - 1]
    rounding = 100 * torch.finfo(context.problem.dtype).eps * abs(first.value)
    if not fifth.value > max(fifth.residual_norm, rounding):
        raise InputError(
            f"the fifth eigenvalue {fifth.value:.3g} is not above zero beyond"
            f" its residual {fifth.residual_norm:.1e}: the ratio is meaningless at these weights"
        )
    ratio = first.value / fifth.value
    tops, fifths = found.quotients.values[:, 0], found.quotients.values[:, PLACE - 1]
    each = (tops - ratio * fifths) / fifth.value + ratio
    settings = {
        "tol": tol,
        "residual": max(first.residual, fifth.residual),
        "seed": context.seed,
    }
    measured = of_batches(context, each.tolist(), settings)
    details = {"eigenvalues": [pair.value for pair in found.largest[:PLACE]]}
    return dataclasses.replace(measured, value=float(ratio), details=details)
