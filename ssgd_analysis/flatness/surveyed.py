"""One survey of the Hessian for all metrics that are read off its spectrum."""

import numpy as np

from ssgd_analysis.curvature import Spectrum, Survey, eigenpairs, survey
from ssgd_analysis.curvature.survey import more_squares
from ssgd_analysis.flatness.context import MetricContext


def surveyed(context: MetricContext) -> Survey:
    """Five eigenpairs, trace and density of the Hessian: those put there, or made once."""
    return survey_given(context) or context.cached(
        "own survey", lambda: survey(context.operator, 5, seed=context.seed, tol=1e-3)
    )


def survey_given(context: MetricContext) -> Survey | None:
    """The survey given to the context by ``provide("survey", …)``.

    One that a metric made does not count: numbers must not depend on what was measured before.
    """
    return context.get("survey")


def spectrum(context: MetricContext, k: int, tol: float) -> Spectrum:
    """The k largest eigenpairs: the given survey's where they are good enough, else by a search.

    Returns:
        k pairs or more; fewer where there are not so many parameters.
    """
    given = survey_given(context)
    pairs = given.spectrum.largest[:k] if given else []
    if given and len(pairs) == k and max(pair.residual for pair in pairs) <= tol:
        return given.spectrum

    def search() -> Spectrum:
        generator = context.generator("lambda_max")
        return eigenpairs(context.operator, k, tol=tol, smallest=False, generator=generator)

    return context.cached(("eigenpairs", k, tol), search)


def squares(context: MetricContext, probes: int) -> np.ndarray:
    """Estimates of ‖H‖²_F, one a probe: those of the survey, and more where it has fewer.

    Returns:
        Shape (probes or more,).
    """
    found = surveyed(context)
    missing = probes - len(found.squares)
    if missing <= 0:
        return found.squares
    generator = context.generator("squares")
    return context.cached(
        ("squares", probes),
        lambda: more_squares(context.operator, found, missing, generator=generator),
    )
