"""Intervals and tests over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ssgd_analysis.comparison.two_samples import two_sample_test


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
    half = float(stdtrit(n - 1, 0.975) * array.std(ddof=1) / np.sqrt(n))
    return Interval(mean, (mean - half, mean + half), n)


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Paired t-test: position i of both came from the same seed."""
    from scipy import stats  # takes most of a second to import

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


def unpaired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Two independent samples of any spreads; ``n`` is the smaller one's size.

    P and interval are of the test that :func:`two_sample_test` chooses at 5%.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    mean, n = float(a.mean() - b.mean()), min(len(a), len(b))
    if n < 2:
        return Difference(mean, None, n, None, paired=False)
    if _no_spread(a) and _no_spread(b):
        return Difference(mean, None, n, _untestable(mean), paired=False)
    test = two_sample_test(len(a), len(b), 0.05)
    error, share = error_of(a, b)
    half = float(test.critical(share, 0.05)) * error
    return Difference(
        mean, (mean - half, mean + half), n, float(test.p(mean / error, share)), paired=False
    )


def unpaired_p(
    values: Sequence[float], baseline: Sequence[float], level: float
) -> tuple[float | None, str]:
    """Two-sided p of two independent samples by the best test for a level, and its name."""
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    test = two_sample_test(len(a), len(b), level)
    mean = float(a.mean() - b.mean())
    if _no_spread(a) and _no_spread(b):
        return _untestable(mean), test.name
    error, share = error_of(a, b)
    return float(test.p(mean / error, share)), test.name


def equivalence_p(
    values: Sequence[float],
    baseline: Sequence[float],
    margin: float,
    paired: bool,
    level: float = 0.05,
) -> float | None:
    """One-sided p of "the means differ by at least a share of the baseline's mean".

    Two one-sided tests of the contrasts a − (1 ± margin) b: the margin is a share of a mean that
    is itself estimated, so that its error counts.

    Args:
        values: of the group.
        baseline: of the baseline.
        margin: as a share of the baseline's mean, positive.
        paired: t of pairs; else the two-sample test of :func:`unpaired_p`.
        level: one-sided, for which that test is chosen.

    Returns:
        The larger p of the two; ``None`` with too few values or no spread.

    Reference:
        Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15, 657-680; of a ratio of
        means, Hauschke, Kieser, Diletti and Burke 1999, Statistics in Medicine 18, 93-105.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if min(len(a), len(b)) < 2 or not margin > 0:
        return None
    if paired and np.array_equal(a, b):
        return 0.0 if b.mean() else None
    if _no_spread(a - b) if paired else _no_spread(a) and _no_spread(b):
        return None
    towards = 1.0 if b.mean() >= 0 else -1.0  # from one limit to the other
    worst = 0.0
    for end in (1.0, -1.0):
        factor = 1 + end * towards * margin
        inside = -end * float(a.mean() - factor * b.mean())  # positive where it is within
        p = _below(a, factor * b, paired, level)
        worst = max(worst, p if inside > 0 else 1 - p)
    return worst


def _below(a: np.ndarray, b: np.ndarray, paired: bool, level: float) -> float:
    """Half the two-sided p of equal means; 0.5 where there is no error to divide by."""
    if paired:
        from scipy import stats  # takes most of a second to import

        return 0.5 if _no_spread(a - b) else float(stats.ttest_rel(a, b).pvalue) / 2
    error, share = error_of(a, b)
    test = two_sample_test(len(a), len(b), min(1.0, 2 * level))
    return float(test.p(float(a.mean() - b.mean()) / error, share)) / 2


def error_of(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Standard error of a difference of means, above zero, and the first's share of its square."""
    parts = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    total = sum(parts)
    return total**0.5, parts[0] / total


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
    ranked = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, index) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        corrected[index] = highest
    return corrected
