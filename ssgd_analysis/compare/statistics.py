"""Intervals and tests over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval.

    Args:
        mean: of the values.
        ci95: (low, high) by Student's t, or ``None``: one value carries no interval.
        n: how many values.
    """

    mean: float
    ci95: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Difference(Interval):
    """A mean difference, its interval, and the two-sided p-value of "no difference".

    Args:
        p: ``None`` where there are too few values, or no spread to test by.
        paired: by seed; else two independent samples (Welch).
    """

    p: float | None
    paired: bool


def interval(values: Sequence[float]) -> Interval:
    """Mean and t-interval of independent values."""
    array = np.asarray(values, dtype=float)
    mean, n = float(array.mean()), len(array)
    if n < 2:
        return Interval(mean, None, n)
    half = float(stats.t.ppf(0.975, n - 1) * array.std(ddof=1) / np.sqrt(n))
    return Interval(mean, (mean - half, mean + half), n)


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Paired t-test: position i of both came from the same seed."""
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    found = interval(differences.tolist())
    if found.n < 2:
        p = None
    elif _no_spread(differences):
        p = _untestable(found.mean)
        if p is None:
            return Difference(found.mean, None, found.n, None, paired=True)
    else:
        p = float(stats.ttest_1samp(differences, 0).pvalue)
    return Difference(found.mean, found.ci95, found.n, p, paired=True)


def welch_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Welch's t-test of two independent samples; ``n`` is the smaller one's size."""
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    mean, n = float(a.mean() - b.mean()), min(len(a), len(b))
    if n < 2:
        return Difference(mean, None, n, None, paired=False)
    if _no_spread(a) and _no_spread(b):
        return Difference(mean, None, n, _untestable(mean), paired=False)
    test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Difference(mean, (float(low), float(high)), n, float(test.pvalue), paired=False)


def equivalence_p(
    values: Sequence[float], baseline: Sequence[float], margin: float, paired: bool
) -> float | None:
    """One-sided p of "the means differ by at least the margin", by two one-sided t tests.

    Args:
        values: of the group.
        baseline: of the baseline.
        margin: in units of the values, positive.
        paired: t of pairs; else Welch's.

    Returns:
        The larger p of the two; ``None`` with too few values, no margin, or no spread.

    Reference:
        Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15, 657-680.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if min(len(a), len(b)) < 2 or not margin > 0:
        return None
    if paired:
        if _no_spread(a - b) and _untestable(float((a - b).mean())) is None:
            return None
        error, dof = float((a - b).std(ddof=1)) / len(a) ** 0.5, float(len(a) - 1)
    else:
        error, dof = welch_error(a, b)
    gap = margin - abs(float(a.mean() - b.mean()))
    if error == 0:
        return 0.0 if gap > 0 and paired else None
    return float(stats.t.sf(gap / error, dof))


def welch_error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom."""
    parts = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    total = sum(parts)
    if total == 0:
        return 0.0, 1.0
    below = sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    return total**0.5, total**2 / below


def _no_spread(values: np.ndarray) -> bool:
    """Whether all values are equal to rounding."""
    return bool(np.ptp(values) <= 1e-12 * max(1e-300, float(np.abs(values).max())))


def _untestable(mean: float) -> float | None:
    """P where the values have no spread: t would be infinite and p zero, which is no evidence.

    Accuracies over some hundred examples take few values; two or three equal differences are
    common by chance.
    """
    return 1.0 if mean == 0 else None


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979); ``None`` stays and does not count."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[index] = highest
    return corrected
