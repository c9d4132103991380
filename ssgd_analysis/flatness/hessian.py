"""Metrics that are read off the Hessian: largest eigenvalue and trace."""

from ssgd_analysis.curvature import Survey, eigenpairs, survey, trace
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric


@metric
def lambda_max(bench: Bench, *, tol: float = 1e-3) -> Measurement:
    """The largest eigenvalue (algebraic) of the Hessian of the mean loss.

    Not invariant to any rescaling of the weights: compare it between equal weight norms and
    train losses only (Dinh et al. 2017).

    Args:
        bench: the problem.
        tol: relative residual at which Lanczos stops.

    Returns:
        Nats per squared weight unit; the error is that of sampling the examples.
    """
    known = survey_known(bench)
    if known and known.spectrum.largest[0].residual <= tol:
        spectrum = known.spectrum
    else:
        generator = bench.generator("lambda_max")
        spectrum = eigenpairs(bench.operator, 1, tol=tol, smallest=False, generator=generator)
    pair = spectrum.largest[0]
    settings = {"tol": tol, "residual": pair.residual, "seed": bench.seed, "error": "examples"}
    return Measurement(pair.value, pair.stderr, settings)


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


def surveyed(bench: Bench) -> Survey:
    """Five eigenpairs, trace and density of the Hessian, made once a bench, or put there."""
    return bench.cached("survey", lambda: survey(bench.operator, 5, seed=bench.seed, tol=1e-3))


def survey_known(bench: Bench) -> Survey | None:
    """The survey if the bench has it already."""
    return bench.get("survey")
