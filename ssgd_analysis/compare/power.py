"""How many seeds it takes."""

import functools
import math

import numpy as np
from scipy import stats
from scipy.special import ndtr

MOST = 1000  # seeds beyond which nobody wants to know the number
QUANTILES = 400  # of the spread that will be seen


def detection_power(
    n: int, spread: float, effect: float, level: float, margin: float = 0.0, dof: float = 0.0
) -> float:
    """Chance that a true effect is found: p < level by t, the right sign, and at least the margin.

    Args:
        n: seeds.
        spread: standard deviation of the differences, or √(σ₁² + σ₂²) of two groups of n.
        effect: the true mean difference.
        level: of the two-sided test, after correction.
        margin: smallest difference found that counts.
        dof: degrees of freedom; default n − 1.
    """
    error, seen = _errors(n, spread, dof or n - 1)
    limit = np.maximum(margin, _critical(level / 2, dof or n - 1) * seen)
    return float(ndtr((abs(effect) - limit) / error).mean())


def equivalence_power(
    n: int, spread: float, margin: float, level: float, effect: float = 0.0, dof: float = 0.0
) -> float:
    """Chance that two one-sided t tests show a true effect to lie within ± margin."""
    error, seen = _errors(n, spread, dof or n - 1)
    room = margin - _critical(level, dof or n - 1) * seen
    inside = ndtr((room - effect) / error) - ndtr((-room - effect) / error)
    return float(np.where(room > 0, inside, 0.0).mean())


def seeds_needed(
    spread: float, margin: float, effect: float, level: float, power: float, groups: int = 1
) -> int | None:
    """The fewest seeds that find an effect, and show its absence, each with this power.

    Args:
        spread: as in :func:`detection_power`.
        margin: smallest difference that matters.
        effect: the true difference to be found.
        level: of a single test, after correction.
        power: of both.
        groups: 1 for pairs, 2 for independent groups of that many seeds each.

    Returns:
        At least 2; ``None``: more than 1000, or no margin.
    """
    if not (margin > 0 and math.isfinite(spread)):
        return None

    def enough(n: int) -> bool:
        dof = groups * (n - 1)
        found = detection_power(n, spread, effect, level, margin, dof)
        absent = equivalence_power(n, spread, margin, level, dof=dof)
        return min(found, absent) >= power

    if not enough(MOST):
        return None
    low, high = 1, MOST  # both powers grow with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _errors(n: int, spread: float, dof: float) -> tuple[float, np.ndarray]:
    """The mean's true standard error, and quantiles of the one that will be estimated."""
    error = max(spread, 1e-300) / math.sqrt(n)
    return error, error * _spreads(dof)


@functools.lru_cache(maxsize=4096)
def _spreads(dof: float) -> np.ndarray:
    """Quantiles of an estimated over the true standard deviation."""
    return np.sqrt(stats.chi2.ppf((np.arange(QUANTILES) + 0.5) / QUANTILES, dof) / dof)


@functools.lru_cache(maxsize=4096)
def _critical(tail: float, dof: float) -> float:
    return float(stats.t.isf(tail, dof))
