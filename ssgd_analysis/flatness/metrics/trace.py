"""The trace of the Hessian."""

import numpy as np

from ssgd_analysis.curvature.deflation import deflation
from ssgd_analysis.curvature.hutchinson import Hutchinson
from ssgd_analysis.curvature.trace import grow
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import survey_given


@metric
def hessian_trace(bench: Bench, *, probes: int = 32) -> Measurement:
    """The trace of the Hessian of the mean loss, by Hutchinson's estimator.

    Args:
        bench: the problem.
        probes: Rademacher probes, at least 2.

    Returns:
        Nats per squared weight unit; the error is that of the probes, one sample each.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Reference:
        Hutchinson 1990; deflated where a survey knows eigenvectors.
    """
    if probes < 2:
        raise InputError(f"probes {probes} should be at least 2, for the error")
    known, deflated = survey_given(bench), 0
    if known and known.trace.probes >= probes:
        values, deflated = known.traces, len(known.density.spikes)
    else:
        values = bench.cached(("trace", probes), lambda: _samples(bench, probes))
    if not np.isfinite(values).all():
        raise WorkError("the Hessian's products are not finite at these weights")
    settings = {
        "probes": len(values),
        "deflated": deflated,
        "seed": bench.seed,
        "error": "probes",
    }
    return of_draws(values.tolist(), settings)


def _samples(bench: Bench, probes: int) -> np.ndarray:
    """zᵀHz of each probe, shape (probes,)."""
    nothing = deflation(bench.operator, None)
    estimator = Hutchinson(bench.operator, nothing, bench.generator("trace"))
    grow(estimator, 0, probes)
    return estimator.samples().mean()
