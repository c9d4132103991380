"""The Frobenius norm of the Hessian."""

import dataclasses
import math

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import squares


@metric(
    "Frobenius norm of the Hessian",
    invariant_to=("permutation",),
)
def frobenius(context: MetricContext, *, probes: int = 32) -> Measurement:
    """‖H‖_F = √(Σ λ²), by E‖Hz‖² = ‖H‖²_F over Rademacher z.

    The part of the eigenpairs that the survey found is computed, the rest is averaged over the
    probes of its trace, whose products are there already. The root of an unbiased mean is biased
    down by stderr² / (2 value), and so are the samples, each its probe's first-order value.

    Args:
        context: the problem.
        probes: at least 2; the survey's 32 cost nothing more.

    Returns:
        Nats per squared weight unit; the error is that of the probes.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.frobenius(problem).value, 3)  # the Hessian is diag(1, 4)
        4.123

    Reference:
        Wu, Wang and Su 2022 (arXiv 2207.02628), where it bounds what SGD's noise leaves stable.
    """
    if probes < 2:
        raise InputError(f"probes {probes} should be at least 2, to give a standard error")
    each = squares(context, probes)
    mean = float(each.mean())
    if not math.isfinite(mean):
        raise WorkError("the Hessian's products are not finite at these weights")
    value = math.sqrt(mean)
    settings = {"probes": len(each), "seed": context.seed, "error": "probes"}
    if not value:
        return Measurement(0.0, 0.0, settings)
    found = of_draws(((each + mean) / (2 * value)).tolist(), settings)
    return dataclasses.replace(found, value=value)
