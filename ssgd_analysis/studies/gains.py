"""Paired gains: one arm minus another, seed by seed, with interval and test."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssgd_analysis.compare.rule import p_value
from ssgd_analysis.compare.statistics import holm, paired_difference

LEVEL = 0.05  # of every test, after Holm's correction
ACCURACY = "test_accuracy"

Seeded = Mapping[str, Mapping[int, float]]  # metric → seed → value
Values = Mapping[tuple[str, str], Seeded]  # (setting, arm) → metric → seed → value


@dataclass(frozen=True)
class Gain:
    """The mean difference of two arms over the seeds that both have.

    Args:
        setting: where.
        arm: what gains.
        rival: over what.
        mean: of arm minus rival, in points where it is an accuracy; ``None``: no common seed.
        ci95: its interval by Student's t.
        p: two-sided, of "no difference".
        p_holm: corrected for the gains it was asked with.
        n: common seeds.
        test: which test p is of.
    """

    setting: str
    arm: str
    rival: str
    mean: float | None
    ci95: tuple[float, float] | None
    p: float | None
    n: int
    test: str
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """``higher``, ``lower``, ``not shown to differ``; ``not compared``: no common seed."""
        if self.mean is None:
            return "not compared"
        if self.p_holm is None or self.p_holm >= LEVEL:
            return "not shown to differ"
        return "higher" if self.mean > 0 else "lower"

    def words(self) -> str:
        """The numbers, for a sentence."""
        if self.mean is None:
            return "no common seed"
        interval = f" [{self.ci95[0]:+.2f}, {self.ci95[1]:+.2f}]" if self.ci95 else ""
        known = "" if self.p_holm is None else f", p = {self.p_holm:.2g}"
        return f"{self.mean:+.2f}{interval}{known}"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def differences(
    values: Values, setting: str, arm: str, rival: str, metric: str = ACCURACY
) -> dict[int, float]:
    """Arm minus rival by seed, in points where it is an accuracy; seeds that both have."""
    mine, theirs = (values.get((setting, label), {}).get(metric, {}) for label in (arm, rival))
    factor = 100 if metric.endswith("accuracy") else 1
    return {
        seed: factor * (value - theirs[seed])
        for seed, value in mine.items()
        if seed in theirs and math.isfinite(value) and math.isfinite(theirs[seed])
    }


def gain_of(
    found: Mapping[int, float], setting: str, arm: str, rival: str, *, family: int = 1
) -> Gain:
    """The gain that some differences show.

    Args:
        found: difference of each seed.
        setting: for the record.
        arm: for the record.
        rival: for the record.
        family: tests that this one is corrected with: an exact test is used where it can reach
            the level after that.
    """
    own = [float(value) for value in found.values()]
    if not own:
        return Gain(setting, arm, rival, None, None, None, 0, "")
    zero = [0.0] * len(own)
    shown = paired_difference(own, zero)
    p, test = p_value(own, zero, paired=True, level=LEVEL / family)
    return Gain(setting, arm, rival, shown.mean, shown.ci95, p, shown.n, test)


def corrected(rows: Sequence[Gain]) -> list[Gain]:
    """The gains with Holm's correction for their number."""
    return [
        dataclasses.replace(row, p_holm=p)
        for row, p in zip(rows, holm([row.p for row in rows]), strict=True)
    ]


def gains(
    values: Values, arm: str, rival: str, settings: Sequence[str], metric: str = ACCURACY
) -> list[Gain]:
    """The gain over one rival in every setting, corrected for the number of settings."""
    return corrected(
        [
            gain_of(
                differences(values, setting, arm, rival, metric),
                setting,
                arm,
                rival,
                family=len(settings),
            )
            for setting in settings
        ]
    )


def slopes(
    values: Values, arm: str, rival: str, places: Mapping[str, float], metric: str = ACCURACY
) -> dict[int, float]:
    """Slope of the gain along an axis, seed by seed: least squares over the settings.

    Args:
        values: of all arms.
        arm: what gains.
        rival: over what.
        places: setting → where on the axis it lies.
        metric: of the gain.

    Returns:
        Seed → slope, for the seeds that all settings have.
    """
    found = {s: differences(values, s, arm, rival, metric) for s in places}
    common = set.intersection(*map(set, found.values())) if found else set()
    x = np.array(list(places.values()))
    if len(x) < 2 or np.ptp(x) == 0:
        return {}
    return {
        seed: float(np.polyfit(x, [found[setting][seed] for setting in places], 1)[0])
        for seed in sorted(common)
    }


def listed(rows: Sequence[Gain], name: str = "rival") -> str:
    """As in: higher than A, B; lower than C; not shown to differ from D."""
    joined = {
        "higher": "higher than {}",
        "lower": "lower than {}",
        "not shown to differ": "not shown to differ from {}",
        "not compared": "not compared with {} (no run)",
    }
    parts = []
    for verdict, words in joined.items():
        names = [getattr(row, name) for row in rows if row.verdict == verdict]
        if names:
            parts.append(words.format(", ".join(names)))
    return "; ".join(parts)
