"""Accuracy, losses and whatever else is no flatness metric, compared at the final weights."""

from collections.abc import Sequence
from typing import Any

from ssgd_analysis.comparison.pairs import Pair, RunCheckpoint
from ssgd_analysis.comparison.rule import p_value
from ssgd_analysis.comparison.statistics import holm, paired_difference, unpaired_difference
from ssgd_analysis.comparison.values import MetricSource, paired_values
from ssgd_analysis.settings.comparison import VerdictRule


def compare_outcomes(
    pairs: Sequence[Pair], metrics: Sequence[str], source: MetricSource, rule: VerdictRule
) -> list[dict[str, Any]]:
    """Test every outcome of every pair for a difference.

    The verdict is ``higher``, ``lower`` or ``not shown to differ``, which is no evidence of
    equality; ``not measured`` where one of the two has no value. Each metric is corrected by
    itself: the passes that were spent, or the size of the weights, do not compete with the
    question of accuracy.

    Args:
        pairs: groups with their baselines.
        metrics: names of the history.
        source: gives their values.
        rule: gives the level.
    """
    outcomes = []
    for metric in metrics:
        finals = [[[RunCheckpoint(c.run) for c in side] for side in pair.sides] for pair in pairs]
        found = [
            paired_values((sides[0], sides[1]), metric, source, pair.paired)[0]
            for pair, sides in zip(pairs, finals, strict=True)
        ]
        level = rule.level / max(1, sum(all(sides) for sides in found))
        rows = [
            _outcome(metric, pair, sides[0], sides[1], level)
            for pair, sides in zip(pairs, found, strict=True)
        ]
        corrected = holm([row["p"] for row in rows])
        outcomes += [
            {**row, "p_holm": p, "verdict": _direction(row["difference"], p, rule)}
            for row, p in zip(rows, corrected, strict=True)
        ]
    return outcomes


def _outcome(
    metric: str, pair: Pair, a: list[float], b: list[float], level: float
) -> dict[str, Any]:
    """An outcome's numbers, its p not yet corrected."""
    row: dict[str, Any] = {
        "metric": metric, "group": pair.group.name, "baseline": pair.baseline.name,
        "difference": None, "ci95": None, "p": None, "test": "", "n": 0,
    }  # fmt: skip
    if not a or not b:
        return row
    found = (paired_difference if pair.paired else unpaired_difference)(a, b)
    p, test = p_value(a, b, paired=pair.paired, level=level)
    return {**row, "difference": found.mean, "ci95": found.ci95, "p": p, "test": test, "n": found.n}


def _direction(difference: float | None, p: float | None, rule: VerdictRule) -> str:
    if difference is None:
        return "not measured"
    if p is None or p >= rule.level:
        return "not shown to differ"
    return "higher" if difference > 0 else "lower"
