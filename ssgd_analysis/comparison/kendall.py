"""Rank correlation of runs that are no independent draws: they share settings and seeds."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

FEWEST_RUNS = 5  # Fieller's error is 0.437 / (n − 4)
FEWEST_UNITS = 4


@dataclass(frozen=True)
class Correlation:
    """Kendall's τ-b with its standard error and what it was computed from.

    Args:
        tau: in [−1, 1]; ``None`` where one side has no spread, or fewer than two runs.
        ci95: (low, high), or ``None``.
        n: how many runs.
        units: how many independent units the interval counts: runs, settings or seeds,
            whichever made it widest; 0 without an interval.
        why: what is missing, if something is.
    """

    tau: float | None
    ci95: tuple[float, float] | None
    n: int
    units: int = 0
    why: str = ""


def kendall(
    x: Sequence[float],
    y: Sequence[float],
    units: Mapping[str, Sequence[Hashable]] | None = None,
) -> Correlation:
    """τ-b and its 95% interval.

    The interval is Fisher's, atanh τ ± t·s. The error s is the largest of Fieller's
    √(0.437 / (n − 4)), which is right for independent runs, and of the jackknife that leaves out
    one unit at a time: runs of one setting are alike, and so are runs of one seed. Fieller's
    error alone covers as little as 70% of the true values where settings matter more than seeds.

    Args:
        x: one value a run.
        y: one value a run.
        units: kind (``"settings"``, ``"seeds"``) → each run's unit; default: each run is one.

    Returns:
        No interval with fewer than five runs, or fewer than four units of the first kind.

    Reference:
        Fieller, Hartley and Pearson 1957 (Biometrika 44); Efron 1982, chapter 3 (jackknife).
    """
    a, b, n = np.asarray(x, dtype=float), np.asarray(y, dtype=float), len(x)
    tau = tau_b(a, b)
    if tau is None:
        return Correlation(None, None, n, why=_why_none(n))
    kinds = units or {"runs": range(n)}
    first, members = next(iter(kinds.items()))
    count = len(set(members))
    if n < FEWEST_RUNS or count < FEWEST_UNITS:
        needed = f"{FEWEST_RUNS} runs" if n < FEWEST_RUNS else f"{FEWEST_UNITS} {first}"
        have = n if n < FEWEST_RUNS else count
        return Correlation(tau, None, n, why=f"{have} are too few for an interval: {needed}")
    bound = 1 - 1 / n**2  # all pairs in order is no proof that τ is one
    halves = [(_quantile(count) * math.sqrt(0.437 / (n - 4)), count)]
    for each in kinds.values():
        size = len(set(each))
        if size >= 3:
            error = _jackknife(a, b, list(each), bound)
            halves.append((_quantile(size) * error, size))
    half, used = max(halves)
    centre = math.atanh(min(bound, max(-bound, tau)))
    return Correlation(tau, (math.tanh(centre - half), math.tanh(centre + half)), n, used)


def mean_kendall(
    groups: Sequence[tuple[Sequence[float], Sequence[float], Sequence[int]]],
) -> Correlation:
    """The mean of the groups' own τ-b: what is left when only the seed varies.

    The interval is the wider one of Student's t over groups and the jackknife that leaves out one
    seed in all groups: the same seed in two groups is no second witness.

    Args:
        groups: for each: x, y and seed of its runs.

    Returns:
        ``n`` counts the runs of groups that have a τ. No interval with fewer than three such
        groups, or four seeds.
    """
    arrays = [(np.asarray(x, float), np.asarray(y, float), seeds) for x, y, seeds in groups]
    taus = [(tau, group) for group in arrays if (tau := tau_b(*group[:2])) is not None]
    n = sum(len(group[2]) for _, group in taus)
    if not taus:
        return Correlation(None, None, n, why="no group has two runs that differ")
    values = np.array([tau for tau, _ in taus])
    seeds = sorted({seed for _, group in taus for seed in group[2]})
    mean = float(values.mean())
    if len(values) < 3 or len(seeds) < FEWEST_UNITS:
        why = f"{len(values)} groups of {len(seeds)} seeds are too few for an interval: 3 of 4"
        return Correlation(mean, None, n, why=why)
    without = []
    for seed in seeds:
        rest = [
            tau_b(x[keep], y[keep])
            for _, (x, y, own) in taus
            for keep in [np.array([each != seed for each in own])]
        ]
        without.append(np.mean([0.0 if tau is None else tau for tau in rest]))
    over_groups = _quantile(len(values)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    over_seeds = _quantile(len(seeds)) * _spread(np.array(without))
    half, units = max((over_groups, len(values)), (over_seeds, len(seeds)))
    if half == 0:
        return Correlation(mean, None, n, why="all groups are equal: no spread to judge by")
    return Correlation(mean, (max(-1.0, mean - half), min(1.0, mean + half)), n, units)


def tau_b(x: np.ndarray, y: np.ndarray) -> float | None:
    """Kendall's τ-b; ``None`` where all values of one side are equal, or there is one run."""
    from scipy import stats  # takes most of a second to import

    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    if len(x) == 2:  # scipy divides by the number of runs minus two
        return float(np.sign(x[1] - x[0]) * np.sign(y[1] - y[0]))
    return float(stats.kendalltau(x, y, method="asymptotic").statistic)  # its p is not used


def tau_a(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over pairs of sign(Δx)·sign(Δy): a tie counts zero (Jiang et al. 2020, equation 2)."""
    n = len(x)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    return float(signs.sum() / (n * (n - 1)))


def _why_none(n: int) -> str:
    return "fewer than two runs" if n < 2 else "all values of one side are equal"


def _quantile(units: int) -> float:
    return float(stdtrit(units - 1, 0.975))


def _jackknife(x: np.ndarray, y: np.ndarray, units: list[Hashable], bound: float) -> float:
    """Standard error of atanh τ when whole units come and go."""
    left = []
    for unit in dict.fromkeys(units):
        keep = np.array([each != unit for each in units])
        left.append(math.atanh(min(bound, max(-bound, tau_b(x[keep], y[keep]) or 0.0))))
    return _spread(np.array(left))


def _spread(left: np.ndarray) -> float:
    count = len(left)
    return float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))
