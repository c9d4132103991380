"""One survey of the Hessian for all metrics that are read off its spectrum."""

from ssgd_analysis.curvature import Survey, survey
from ssgd_analysis.flatness.bench import Bench


def surveyed(bench: Bench) -> Survey:
    """Five eigenpairs, trace and density of the Hessian, made once a bench, or put there."""
    return bench.cached("survey", lambda: survey(bench.operator, 5, seed=bench.seed, tol=1e-3))


def survey_known(bench: Bench) -> Survey | None:
    """The survey if the bench has it already."""
    return bench.get("survey")
