"""How often groups that do not differ get a verdict, and how often planted differences do.

``python benchmarks/levels.py``: minutes on one core; prints the tables of docs/measures.md. The
verdicts are those of :func:`ssgd_analysis.comparison.rule.judge`, over arrays of simulated groups
(tests/comparison/test_levels.py holds the two beside each other); both groups have equal means.
"""

import argparse
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from ssgd_analysis.comparison.power import seeds_needed
from ssgd_analysis.comparison.resampling import FLIPS, TIES, flips, signs
from ssgd_analysis.comparison.two_samples import Test, two_sample_test
from ssgd_analysis.settings.comparison import VerdictRule

RULE = VerdictRule()
BASE = 1.0  # the mean of both groups
SPREAD = 0.1  # of the baseline, so that a margin of 10% is one standard deviation
SHARES = np.sin(np.linspace(0, np.pi / 2, 193)) ** 2  # where critical values are interpolated
SIZES = [(n, m) for n in (2, 3, 4, 6, 10) for m in (2, 3, 4, 6, 10)]
RATIOS = (1, 2, 3, 6)
METRICS = (1, 2, 3)
Law = Callable[[np.ndarray], np.ndarray]


def lognormal(normal: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """Of mean 0 and standard deviation 1; skewness 6.2 at σ = 1, 1.75 at σ = 0.5."""
    variance = np.expm1(sigma**2) * np.exp(sigma**2)
    return (np.exp(sigma * normal) - np.exp(sigma**2 / 2)) / np.sqrt(variance)


def plain(normal: np.ndarray) -> np.ndarray:
    """As it is."""
    return normal


mild = functools.partial(lognormal, sigma=0.5)
# the group's law and the baseline's, both of mean 0 and standard deviation 1
LAWS: dict[str, tuple[Law, Law]] = {
    "normal": (plain, plain),
    "lognormal, skewness 1.75 both": (mild, mild),
    "lognormal, skewness 6.2 both": (lognormal, lognormal),
    "lognormal, skewness 1.75 against normal": (mild, plain),
    "lognormal, skewness 6.2 against normal": (lognormal, plain),
}


def simulated(
    rng: np.random.Generator, draws: int, n: int, m: int, laws: tuple[Law, Law], ratio: float,
    metrics: int, paired: bool, shift: float = 0.0, spread: float = SPREAD,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Groups of shapes (draws, metrics, n) and (…, m); metrics are correlated by 0.5.

    By pairs the seed that both share gives half of the variance.
    """

    def runs(count: int) -> np.ndarray:
        common = rng.normal(size=(draws, 1, count))
        return (common + rng.normal(size=(draws, metrics, count))) / np.sqrt(2)

    a, b = runs(n), runs(m)
    if paired:
        seed = runs(n)
        a, b = (a + seed) / np.sqrt(2), (b + seed) / np.sqrt(2)
    return BASE + shift + ratio * spread * laws[0](a), BASE + spread * laws[1](b)


def verdicts(a: np.ndarray, b: np.ndarray, paired: bool) -> dict[str, np.ndarray]:
    """What is said of any metric, per draw, after Holm's correction.

    ``test below`` and ``above`` are p < level, whatever the margin; and the rule's own words.
    """
    family = a.shape[1]
    gap = a.mean(axis=2) - b.mean(axis=2)
    margin = RULE.margin * np.abs(b.mean(axis=2))
    found = _holm(lambda level: _rejects(a, b, paired, level, RULE.level / family), family)
    near = equivalent(a, b, paired)
    shown = found & (np.abs(gap) >= margin) & ~near
    return {
        "test below": (found & (gap < 0)).any(axis=1),
        "test above": (found & (gap > 0)).any(axis=1),
        "flatter": (shown & (gap < 0)).any(axis=1),
        "sharper": (shown & (gap > 0)).any(axis=1),
        "no difference": near.any(axis=1),
    }


def equivalent(a: np.ndarray, b: np.ndarray, paired: bool) -> np.ndarray:
    """Which metrics are shown to be within the margin, after Holm's correction."""
    family = a.shape[1]
    return _holm(lambda level: _within(a, b, paired, level, RULE.level / family), family)


def _holm(rejects: Callable[[float], np.ndarray], family: int) -> np.ndarray:
    """What Holm's steps reject, of tests whose rejections grow with the level."""
    by_level = [rejects(RULE.level / (family - step)) for step in range(family)]
    rejected = np.zeros_like(by_level[0])
    going = np.ones(len(rejected), dtype=bool)
    for step, at_level in enumerate(by_level):
        # the smallest `step + 1` p-values were all below their levels where so many are rejected
        going &= at_level.sum(axis=1) > step
        rejected |= at_level & going[:, None]
    return rejected


def _rejects(a: np.ndarray, b: np.ndarray, paired: bool, level: float, own: float) -> np.ndarray:
    """Two-sided, by the test that is chosen for the level ``own``."""
    if not paired:
        test = two_sample_test(a.shape[2], b.shape[2], own)
        t, share = _ratio(a, b)
        return np.abs(t) > critical(test, level)(share)
    gaps = a - b
    if flips(gaps.shape[2], own):
        sums = np.abs(gaps @ signs(gaps.shape[2]).T)
        p = (sums >= np.abs(gaps.sum(axis=2, keepdims=True)) * (1 - TIES)).mean(axis=2)
        return p < level
    return 2 * special.stdtr(gaps.shape[2] - 1, -np.abs(_paired_t(gaps))) < level


def _within(a: np.ndarray, b: np.ndarray, paired: bool, level: float, own: float) -> np.ndarray:
    """Two one-sided tests against (1 ± margin) of the baseline's mean, which is positive."""
    inside = np.ones(a.shape[:2], dtype=bool)
    for end in (1, -1):
        limit = (1 + end * RULE.margin) * b
        if paired:
            t = -end * _paired_t(a - limit)
            inside &= special.stdtr(a.shape[2] - 1, -t) < level
        else:
            t, share = _ratio(a, limit)
            test = two_sample_test(a.shape[2], b.shape[2], 2 * own)
            inside &= -end * t > critical(test, 2 * level)(share)
    return inside


def _paired_t(gaps: np.ndarray) -> np.ndarray:
    return gaps.mean(axis=2) / (gaps.std(axis=2, ddof=1) / np.sqrt(gaps.shape[2]))


def _ratio(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T, and the first mean's share of its squared error."""
    mine, other = (x.var(axis=2, ddof=1) / x.shape[2] for x in (a, b))
    return (a.mean(axis=2) - b.mean(axis=2)) / np.sqrt(mine + other), mine / (mine + other)


@functools.lru_cache(maxsize=1024)
def critical(test: Test, level: float) -> Callable[[np.ndarray], np.ndarray]:
    """The test's critical t as a function of the share, interpolated."""
    angles, values = np.arcsin(np.sqrt(SHARES)), np.log(test.critical(SHARES, level))
    return lambda share: np.exp(np.interp(np.arcsin(np.sqrt(share)), angles, values))


def levels(law: str, paired: bool, draws: int) -> list[dict[str, Any]]:
    """Rates of false verdicts for all sizes, ratios of spreads and numbers of metrics."""
    rows: list[dict[str, Any]] = []
    for n, m in [(n, n) for n in range(2, 11)] if paired else SIZES:
        for ratio in RATIOS:
            for metrics in METRICS:
                name = f"{law} {paired} {n} {m} {ratio} {metrics}"
                rng = np.random.default_rng(zlib.crc32(name.encode()))
                a, b = simulated(rng, draws, n, m, LAWS[law], ratio, metrics, paired)
                rates = {key: float(x.mean()) for key, x in verdicts(a, b, paired).items()}
                # at either edge of the margin "no difference" is false
                for key, edge in (("upper edge", RULE.margin), ("lower edge", -RULE.margin)):
                    c, d = simulated(rng, draws, n, m, LAWS[law], ratio, metrics, paired, edge)
                    rates[key] = float(equivalent(c, d, paired).any(axis=1).mean())
                rows.append({"sizes": (n, m), "ratio": ratio, "metrics": metrics, **rates})
    return rows


SIDES = ("test below", "test above", "flatter", "sharper", "upper edge", "lower edge")


def level_table(draws: int) -> list[str]:
    """One line a law: of each rate the largest over all settings, and where it is."""
    lines = ["| values | pairs | test below | test above | flatter | sharper | equivalence |"]
    lines.append("|---|---|---|---|---|---|---|")
    for law in LAWS:
        for paired in (True, False):
            rows = levels(law, paired, draws)
            cells = []
            for sides in (*((side,) for side in SIDES[:4]), SIDES[4:]):
                worst = max(rows, key=lambda row: max(float(row[s]) for s in sides))
                rate = max(float(worst[s]) for s in sides)
                n, m = worst["sizes"]
                where = f"{n}" if paired else f"{n}/{m}"
                cells.append(f"{rate:.1%} ({where}, ×{worst['ratio']}, {worst['metrics']})")
            lines.append(f"| {law} | {'yes' if paired else 'no'} | {' | '.join(cells)} |")
    return lines


def power_table(draws: int) -> list[str]:
    """How often twice the margin is found at given sizes, normal values, one metric."""
    lines = ["| seeds | " + " | ".join(f"spread ×{ratio}" for ratio in RATIOS) + " |"]
    lines.append("|---|" + "---|" * len(RATIOS))
    cases = [(n, n, True) for n in (3, 5, 8, 10)]
    cases += [(n, m, False) for n, m in ((3, 3), (5, 5), (10, 10), (2, 10), (10, 2), (3, 6))]
    for n, m, paired in cases:
        cells = []
        for ratio in RATIOS:
            rng = np.random.default_rng([n, m, paired, ratio])
            a, b = simulated(
                rng, draws, n, m, LAWS["normal"], ratio, 1, paired, shift=-2 * RULE.margin
            )
            cells.append(f"{verdicts(a, b, paired)['flatter'].mean():.0%}")
        size = f"{n} pairs" if paired else f"{n} against {m}"
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return lines


def promises(draws: int, spreads: Sequence[float]) -> list[dict[str, float]]:
    """At the number of seeds that is asked for: how often an effect, or its absence, is shown."""
    rows = []
    for paired in (True, False):
        for ratio in (1, 3):
            for metrics in METRICS:
                for spread in spreads:
                    n = _planned(spread, ratio, metrics, paired)
                    if n is not None and n <= FLIPS:
                        rows.append(_kept(draws, n, spread, ratio, metrics, paired))
    return rows


def _planned(spread: float, ratio: float, metrics: int, paired: bool) -> int | None:
    """Seeds needed, by the true spreads."""

    def of(factor: float) -> float:
        squares = ratio**2 + factor**2
        return spread * float(np.sqrt(squares - ratio * factor if paired else squares))

    return seeds_needed(
        of(1.0), RULE.margin, 2 * RULE.margin, RULE.level / metrics, RULE.power,
        1 if paired else 2, share=ratio**2 / (1 + ratio**2),
        contrast=max(of(1 + RULE.margin), of(1 - RULE.margin)),
    )  # fmt: skip


def _kept(
    draws: int, n: int, spread: float, ratio: float, metrics: int, paired: bool
) -> dict[str, float]:
    rng = np.random.default_rng([n, metrics, paired, int(1e4 * spread)])
    rates = {}
    for key, shift in (("flatter", -2 * RULE.margin), ("no difference", 0.0)):
        a, b = simulated(rng, draws, n, n, LAWS["normal"], ratio, metrics, paired, shift, spread)
        # of the first metric, as every one has its own printed number
        rates[key] = float(_first(a, b, paired, key).mean())
    return {"n": n, "spread": spread, "ratio": ratio, "metrics": metrics, "paired": paired, **rates}


def _first(a: np.ndarray, b: np.ndarray, paired: bool, key: str) -> np.ndarray:
    """A verdict of the first metric at the Bonferroni level that is planned with."""
    own = RULE.level / a.shape[1]
    if key == "no difference":
        return _within(a[:, :1], b[:, :1], paired, own, own)[:, 0]
    gap = (a - b.mean(axis=2, keepdims=True)).mean(axis=2)[:, 0]
    shown = _rejects(a[:, :1], b[:, :1], paired, own, own)[:, 0]
    return shown & (gap <= -RULE.margin * b[:, 0].mean(axis=1))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000, help="simulated comparisons a row")
    draws = parser.parse_args().draws
    print("\n".join(level_table(draws)), "\n")
    print("\n".join(power_table(draws)), "\n")
    rows = promises(max(1000, draws // 5), (0.01, 0.03, 0.05, 0.08, 0.12))
    for key in ("flatter", "no difference"):
        least = min(rows, key=lambda row: row[key])
        print(f"least power at the seeds that are asked for, {key}: {least}")


if __name__ == "__main__":
    main()
