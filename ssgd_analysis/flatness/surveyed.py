"""One survey of the Hessian for all metrics that are read off its spectrum."""

import numpy as np

from ssgd_analysis.curvature import Spectrum, Survey, eigenpairs, survey
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


def spectrum(bench: Bench, k: int, tol: float) -> Spectrum:
    """The k largest eigenpairs: the given survey's where they are good enough, else by a search.

    Returns:
        k pairs or more; fewer where there are not so many parameters.
    """
    given = survey_given(bench)
    known = given.spectrum.largest[:k] if given else []
    if given and len(known) == k and max(pair.residual for pair in known) <= tol:
        return given.spectrum

    def search() -> Spectrum:
        generator = bench.generator("lambda_max")
        return eigenpairs(bench.operator, k, tol=tol, smallest=False, generator=generator)

    return bench.cached(("eigenpairs", k, tol), search)


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
