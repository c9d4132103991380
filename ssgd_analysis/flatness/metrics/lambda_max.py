"""The largest eigenvalue of the Hessian."""

from ssgd_analysis.curvature import eigenpairs
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import survey_given


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
    known = survey_given(bench)
    if known and known.spectrum.largest[0].residual <= tol:
        spectrum = known.spectrum
    else:
        generator = bench.generator("lambda_max")
        spectrum = eigenpairs(bench.operator, 1, tol=tol, smallest=False, generator=generator)
    pair = spectrum.largest[0]
    settings = {"tol": tol, "residual": pair.residual, "seed": bench.seed, "error": "examples"}
    return Measurement(pair.value, pair.stderr, settings)
