"""The trace of the Hessian."""

import numpy as np

from ssgd_analysis.curvature.estimates.deflation import deflation
from ssgd_analysis.curvature.estimates.hutchinson import Hutchinson
from ssgd_analysis.curvature.estimates.trace import grow
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import survey_given


@metric(
    "trace of the Hessian",
    invariant_to=("permutation",),
    compared=True,
)
def trace(context: MetricContext, *, probes: int = 32) -> Measurement:
    """The trace of the Hessian of the mean loss, by Hutchinson's estimator.

    Args:
        context: the problem.
        probes: Rademacher probes, at least 2.

    Returns:
        Nats per squared weight unit; the error is that of the probes, one sample each.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.trace(problem).value, 3)  # the Hessian is diag(1, 4)
        5.0

    Reference:
        Hutchinson 1990; deflated where a survey knows eigenvectors.
    """
    if probes < 2:
        raise InputError(f"probes {probes} should be at least 2, to give a standard error")
    survey, deflated = survey_given(context), 0
    if survey and survey.trace.probes >= probes:
        values, deflated = survey.traces, len(survey.density.spikes)
    else:
        values = context.cached(("trace", probes), lambda: _samples(context, probes))
    if not np.isfinite(values).all():
        raise WorkError("the Hessian's products are not finite at these weights")
    settings = {
        "probes": len(values),
        "deflated": deflated,
        "seed": context.seed,
        "error": "probes",
    }
    return of_draws(values.tolist(), settings)


def _samples(context: MetricContext, probes: int) -> np.ndarray:
    """zᵀHz of each probe, shape (probes,)."""
    nothing = deflation(context.operator, None)
    estimator = Hutchinson(context.operator, nothing, context.generator("trace"))
    grow(estimator, 0, probes)
    return estimator.samples().mean()
