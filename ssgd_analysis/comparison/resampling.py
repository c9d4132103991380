"""Exact sign-flip tests and bootstrap intervals over seeds."""

import functools
import math
from collections.abc import Sequence

import numpy as np

FLIPS = 16  # seeds up to which all 2ⁿ signs are tried
RESAMPLES = 2000
TIES = 1e-9  # statistics that are equal but for rounding count as equal


def smallest_flip_p(n: int) -> float | None:
    """The smallest p that a sign-flip test of n differences can have; ``None``: too many."""
    return 2.0 ** (1 - n) if n <= FLIPS else None


def flips(n: int, level: float) -> bool:
    """Whether a sign-flip test of n differences can reach a level."""
    least = smallest_flip_p(n)
    return least is not None and least <= level


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
    sums = np.abs(signs(len(values)) @ values)
    return float((sums >= abs(values.sum()) * (1 - TIES)).mean())


@functools.lru_cache(maxsize=4)
def signs(n: int) -> np.ndarray:
    """All choices of n signs but those of the other half, which have the same |mean|."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * bits


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
    from scipy import stats  # takes most of a second to import

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
