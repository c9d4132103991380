"""One survey of the Hessian for all metrics that are read off its spectrum."""

import numpy as np

from ssgd_analysis.curvature import Survey, survey
from ssgd_analysis.curvature.survey import more_squares
from ssgd_analysis.flatness.bench import Bench


def surveyed(bench: Bench) -> Survey:
    """Five eigenpairs, trace and density of the Hessian: those put there, or made once."""
    return survey_given(bench) or bench.cached(
        "own survey", lambda: survey(bench.operator, 5, seed=bench.seed, tol=1e-3)
    )


def survey_given(bench: Bench) -> Survey | None:
    """The survey that was put on the bench by ``keep("survey", …)``.

    One that a metric made does not count: numbers must not depend on what was measured before.
    """
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
