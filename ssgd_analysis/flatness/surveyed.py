"""One survey of the Hessian for all metrics that are read off its spectrum."""

import numpy as np

from ssgd_analysis.curvature import Survey, survey
from ssgd_analysis.curvature.survey import more_squares
from ssgd_analysis.flatness.bench import Bench


def surveyed(bench: Bench) -> Survey:
    """Five eigenpairs, trace and density of the Hessian, made once a bench, or put there."""
    return bench.cached("survey", lambda: survey(bench.operator, 5, seed=bench.seed, tol=1e-3))


def survey_known(bench: Bench) -> Survey | None:
    """The survey if the bench has it already."""
    return bench.get("survey")


def squares(bench: Bench, probes: int) -> np.ndarray:
    """Estimates of ‖H‖²_F, one a probe: those of the survey, and more where it has fewer.

    Returns:
        Shape (probes or more,).
    """
    found = surveyed(bench)
    missing = probes - len(found.squares)
    if missing <= 0:
        return found.squares
    generator = bench.generator("squares")
    return bench.cached(
        ("squares", probes),
        lambda: more_squares(bench.operator, found, missing, generator=generator),
    )
