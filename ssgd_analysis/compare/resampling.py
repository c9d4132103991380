"""Exact permutation tests and bootstrap intervals over seeds."""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

FLIPS = 16  # seeds up to which all 2ⁿ signs are tried
SPLITS = 20_000  # ways to part two groups that are tried at most
RESAMPLES = 2000
TIES = 1e-9  # statistics that are equal but for rounding count as equal


def smallest_flip_p(n: int) -> float | None:
    """The smallest p that a sign-flip test of n differences can have; ``None``: too many."""
    return 2.0 ** (1 - n) if n <= FLIPS else None


def smallest_split_p(n: int, m: int) -> float | None:
    """The smallest p of an exact two-sample test of n and m values; ``None``: too many."""
    ways = math.comb(n + m, n)
    return 2 / ways if ways <= SPLITS else None


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided exact p of "the differences are symmetric about zero", statistic |mean|.

    Of all 2ⁿ choices of signs the share whose mean is at least as far from zero. Right for
    pairs whatever their distribution, as which of the two is which is then chance.

    Args:
        differences: n ≤ 16 of them.

    Reference:
        Fisher 1935, The Design of Experiments, section 21.
    """
    values = np.asarray(differences, dtype=float)
    sums = np.abs(_signs(len(values)) @ values)
    return float((sums >= abs(values.sum()) * (1 - TIES)).mean())


def split(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Two-sided exact p of "both groups are the same", statistic |Welch's t|.

    Of all ways to part the pooled values into two groups of these sizes the share with a t at
    least as large. Studentised, so that with unequal spreads it is still right in the limit.

    Reference:
        Janssen 1997, Statistics & Probability Letters 36, 9-21.
    """
    pooled = np.concatenate([np.asarray(values, float), np.asarray(baseline, float)])
    pooled = pooled - pooled.mean()  # sums of squares without cancellation
    size = float(np.abs(pooled).max())
    if size == 0:
        return 1.0
    pooled /= size
    n, m = len(values), len(baseline)
    mine = pooled[_choices(n + m, n)]
    sums, squares = mine.sum(axis=1), np.square(mine).sum(axis=1)
    rest, rest_squares = pooled.sum() - sums, np.square(pooled).sum() - squares
    gap = np.abs(sums / n - rest / m)
    spread = _mean_variance(sums, squares, n) + _mean_variance(rest, rest_squares, m)
    t = gap / np.sqrt(np.maximum(spread, 1e-24))
    return float((t >= t[0] * (1 - TIES)).mean())


@functools.lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """All choices of n signs but those of the other half, which have the same |mean|."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * bits


@functools.lru_cache(maxsize=8)
def _choices(total: int, n: int) -> np.ndarray:
    """All ways to choose n of so many places, the first n places first."""
    return np.array(list(itertools.combinations(range(total), n)))


def _mean_variance(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """The squared standard error of means of n values."""
    return np.maximum(squares - sums**2 / n, 0) / max(n - 1, 1) / n


def bootstrap_interval(
    values: Sequence[float], baseline: Sequence[float], paired: bool
) -> tuple[float, float] | None:
    """95% BCa bootstrap interval of the mean difference; the same seeds give the same interval.

    It knows only the values seen, so with few seeds (below ten or so) it is too narrow: it
    stands beside the t interval, to show skewness, and decides nothing.

    Args:
        values: of the group.
        baseline: of the baseline.
        paired: resample pairs; else both groups by themselves.

    Returns:
        (low, high), or ``None`` with fewer than three seeds, or no spread.

    Reference:
        Efron 1987, JASA 82, 171-185.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    data = (a - b,) if paired else (a, b)
    if min(len(part) for part in data) < 3 or any(np.ptp(part) == 0 for part in data):
        return None

    def gap(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [part.mean(axis=axis) for part in parts]
        return means[0] if paired else means[0] - means[1]

    with np.errstate(all="ignore"):
        found = stats.bootstrap(
            data, gap, n_resamples=RESAMPLES, method="BCa", vectorized=True, rng=0
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
