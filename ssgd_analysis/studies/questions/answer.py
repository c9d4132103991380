"""What answers are made of: paired gains of one arm over another, and their words."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssgd_analysis.comparison.rule import p_value
from ssgd_analysis.comparison.statistics import holm, paired_difference
from ssgd_analysis.errors import InputError
from ssgd_analysis.studies.spec import Arm, Study

LEVEL = 0.05  # of every test, after Holm's correction
ACCURACY = "test_accuracy"
UNTUNED = "every tuning trial failed"  # of an arm in a setting: none of its seeds is trained

Seeded = Mapping[str, Mapping[int, float]]  # metric → seed → value
Values = Mapping[tuple[str, str], Seeded]  # (setting, arm) → metric → seed → value


@dataclass(frozen=True)
class Answer:
    """A sentence and the numbers that it was composed from.

    Args:
        sentence: for the top of the report.
        record: JSON; the report draws ``gains``, ``slopes``, ``pooled``, ``pairs``, ``strength``
            and ``variance``.
    """

    sentence: str
    record: dict[str, Any] = field(default_factory=dict)


class Question(ABC):
    """A kind of question that a study can ask, as its TOML file names it."""

    mentions_failures = False  # whether the sentence itself says how many runs failed

    def check(self, study: Study) -> None:  # noqa: B027 (most questions fit every study)
        """Refuse a study that the question does not fit.

        Raises:
            InputError: say, no axis along which the arms lie.
        """

    @abstractmethod
    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """Compose the answer from the study's numbers.

        Args:
            study: gives arms, settings, the focus and its rivals.
            result: groups, tests, outcomes, tuning, failures and variances.
            values: (setting, arm) → metric → seed → value.
        """


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
        """``higher``, ``lower``, ``not shown to differ``; ``not measured``: no common seed."""
        if self.mean is None:
            return "not measured"
        if self.p_holm is None or self.p_holm >= LEVEL:
            return "not shown to differ"
        return "higher" if self.mean > 0 else "lower"

    def words(self) -> str:
        """The numbers, for a sentence."""
        if self.mean is None:
            return "no common seed"
        interval = f" [{self.ci95[0]:+.2f}, {self.ci95[1]:+.2f}]" if self.ci95 else ""
        p = "" if self.p_holm is None else f", p = {self.p_holm:.2g}"
        return f"{self.mean:+.2f}{interval}{p}"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def gains_by_seed(
    values: Values, setting: str, arm: str, rival: str, metric: str = ACCURACY
) -> dict[int, float]:
    """Arm minus rival by seed, in points where it is an accuracy; seeds that both have."""
    own, other = (values.get((setting, label), {}).get(metric, {}) for label in (arm, rival))
    factor = 100 if metric.endswith("accuracy") else 1
    return {
        seed: factor * (value - other[seed])
        for seed, value in own.items()
        if seed in other and math.isfinite(value) and math.isfinite(other[seed])
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
                gains_by_seed(values, setting, arm, rival, metric),
                setting,
                arm,
                rival,
                family=len(settings),
            )
            for setting in settings
        ]
    )


def rivals_of(study: Study) -> list[str]:
    """Labels of all arms but the focus."""
    return [arm.label for arm in study.arms if arm.label != study.focus]


def all_gains(study: Study, values: Values) -> list[Gain]:
    """Over every rival in every setting; Holm over the settings, rival by rival."""
    names = [setting.name for setting in study.settings]
    return [gain for rival in rivals_of(study) for gain in gains(values, study.focus, rival, names)]


def by_setting(table: Sequence[Gain], rival: str) -> str:
    """The gains over a rival, as in ``batch 32: +0.51 [+0.20, +0.82], p = 0.01``."""
    return ", ".join(
        (f"{gain.setting}: " if gain.setting else "") + gain.words()
        for gain in table
        if gain.rival == rival
    )


def count_failures(study: Study, failures: Mapping[str, str]) -> int:
    """Final runs that the answer lacks: those that failed, or had no trial to choose from."""
    return sum(len(study.seeds) if why == UNTUNED else 1 for why in failures.values())


def p_words(p: float | None) -> str:
    """As in ``p = 0.02``."""
    return "no p" if p is None else f"p = {p:.2g}"


def seeds_words(count: int) -> str:
    """As in ``10 seeds``."""
    return "1 seed" if count == 1 else f"{count} seeds"


def refuse_axis(study: Study, lines: Sequence[Sequence[float | None]], *, log: bool) -> None:
    """Refuse an axis without two values, or one that is tuned.

    Args:
        study: its axis is a field of ``[train]`` or a setting of the focus's method.
        lines: the positions along the axis that have to differ.
        log: the positions need a logarithm.

    Raises:
        InputError: no axis, one that is tuned, or one without two numbers.
    """
    start = f"study '{study.name}': the question '{study.question}' needs an axis"
    if not study.axis:
        raise InputError(f"{start}: name a field of [train] or a setting of the method")
    if any(study.axis in study.search(arm) for arm in focus_arms(study)):
        raise InputError(f"{start} that is not tuned, but '{study.axis}' is tuned")
    if not all(at is not None and (at > 0 or not log) for line in lines for at in line):
        kind = "positive numbers" if log else "numbers"
        raise InputError(f"{start} of {kind}: '{study.axis}' is not one everywhere")
    if any(len(set(line)) < 2 for line in lines):
        raise InputError(f"{start} with at least two values: '{study.axis}' has one")


def focus_arms(study: Study) -> list[Arm]:
    """The arms of the focus's method."""
    method = next(arm.method for arm in study.arms if arm.label == study.focus)
    return [arm for arm in study.arms if arm.method == method]
