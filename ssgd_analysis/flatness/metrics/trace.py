"""The trace of the Hessian."""

from ssgd_analysis.curvature import trace
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import survey_known


@metric
def hessian_trace(bench: Bench, *, probes: int = 32) -> Measurement:
    """The trace of the Hessian of the mean loss, by Hutchinson's estimator.

    Args:
        bench: the problem.
        probes: Rademacher probes.

    Returns:
        Nats per squared weight unit; the error is that of the probes.
    """
    known = survey_known(bench)
    deflated = 0
    if known and known.trace.probes >= probes:
        found, deflated = known.trace, known.spectrum.vectors.shape[1]
    else:
        found = trace(bench.operator, probes=probes, generator=bench.generator("trace"))
    settings = {
        "probes": found.probes,
        "deflated": deflated,
        "seed": bench.seed,
        "error": "probes",
    }
    return Measurement(found.value, found.stderr, settings)
