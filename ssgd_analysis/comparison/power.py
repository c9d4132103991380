"""How many seeds it takes."""

import functools
import math

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtrit

from ssgd_analysis.comparison.two_samples import TINY, two_sample_test, variance_shares

MOST_SEEDS = 1000  # seeds beyond which nobody wants to know the number
SPREADS = 400  # of the spread that will be seen


def detection_power(
    n: int,
    spread: float,
    effect: float,
    level: float,
    margin: float = 0.0,
    share: float | None = None,
) -> float:
    """Chance that a true effect is found: p < level, the right sign, and at least the margin.

    Args:
        n: seeds, of each group where there are two.
        spread: standard deviation of the differences, or √(σ₁² + σ₂²) of two groups.
        effect: the true mean difference.
        level: of the two-sided test, after correction.
        margin: smallest difference found that counts.
        share: σ₁²/(σ₁² + σ₂²) of two groups; ``None``: pairs, tested by t.
    """
    error = max(spread, TINY) / math.sqrt(n)
    limits, weights = _limits(n, level, share)
    limit = np.maximum(margin, limits * error)
    return float((ndtr((abs(effect) - limit) / error) @ weights).mean())


def equivalence_power(
    n: int,
    spread: float,
    margin: float,
    level: float,
    effect: float = 0.0,
    share: float | None = None,
) -> float:
    """Chance that two one-sided tests show a true effect to lie within ± margin."""
    error = max(spread, TINY) / math.sqrt(n)
    limits, weights = _limits(n, min(1.0, 2 * level), share)
    room = margin - limits * error
    inside = ndtr((room - effect) / error) - ndtr((-room - effect) / error)
    return float((np.where(room > 0, inside, 0.0) @ weights).mean())


def seeds_needed(
    spread: float,
    margin: float,
    effect: float,
    level: float,
    power: float,
    groups: int = 1,
    *,
    share: float = 0.5,
    contrast: float | None = None,
) -> int | None:
    """The fewest seeds that find an effect, and show its absence, each with this power.

    Args:
        spread: as in :func:`detection_power`.
        margin: smallest difference that matters.
        effect: the true difference to be found.
        level: of a single test, after correction.
        power: of both.
        groups: 1 for pairs, 2 for independent groups of that many seeds each.
        share: the first group's of the squared spread; of no meaning for pairs.
        contrast: spread of what equivalence is tested by, a − (1 ± margin) b, the wider of the
            two; default: the same.

    Returns:
        At least 2; ``None``: more than 1000, or no margin.
    """
    if not (margin > 0 and math.isfinite(spread)):
        return None
    ratio = None if groups == 1 else round(20 * share) / 20  # so that limits are found again

    def enough(n: int) -> bool:
        found = detection_power(n, spread, effect, level, margin, ratio)
        absent = equivalence_power(n, contrast or spread, margin, level, share=ratio)
        return min(found, absent) >= power

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # both powers grow with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=1024)
def _limits(n: int, level: float, share: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The difference at which p is the level, over the true standard error, and weights.

    Shape (quantiles of the spread that will be seen, values of the share that will be seen); the
    weights are of the second axis, which pairs have no need of.
    """
    if share is None:
        return -stdtrit(n - 1, level / 2) * _spreads(n - 1.0)[:, None], np.ones(1)
    one, rest, weights = variance_shares(n, n)
    first, second = share * one, (1 - share) * rest
    test = two_sample_test(n, n, level)
    critical = test.critical(first / (first + second), level) * np.sqrt(2 * (first + second))
    return _spreads(2.0 * (n - 1))[3::8, None] * critical, weights  # 50 will do, as b varies too


@functools.lru_cache(maxsize=4096)
def _spreads(dof: float) -> np.ndarray:
    """Quantiles of an estimated over the true standard deviation."""
    chi2 = 2 * gammaincinv(dof / 2, (np.arange(SPREADS) + 0.5) / SPREADS)
    return np.sqrt(chi2 / dof)
