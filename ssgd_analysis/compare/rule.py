"""The rule by which flatness is judged: set before the numbers are seen, and printed."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ssgd_analysis.compare.power import seeds_needed
from ssgd_analysis.compare.resampling import (
    FLIPS,
    bootstrap_interval,
    flips,
    sign_flip,
)
from ssgd_analysis.compare.statistics import (
    equivalence_p,
    holm,
    paired_difference,
    unpaired_difference,
    unpaired_p,
)
from ssgd_analysis.errors import InputError

FLATTER, SHARPER, SAME = "flatter", "sharper", "no difference"
INCOMPARABLE = "not comparable"
COPY = 1e-3  # two runs never agree so well; a copy of the same function does, in float32 too


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When one method is called flatter than another.

    Args:
        level: of all tests that count together (family-wise, Holm).
        margin: smallest difference that matters, relative to the baseline's mean.
        power: with which the number of seeds is planned.

    Raises:
        InputError: one of them is out of range.
    """

    level: float = 0.05
    margin: float = 0.1
    power: float = 0.8

    def __post_init__(self) -> None:
        for name in ("level", "margin", "power"):
            value = getattr(self, name)
            if not 0 < value < (math.inf if name == "margin" else 1):
                raise InputError(
                    f"{name} {value} should be above 0"
                    + ("" if name == "margin" else " and below 1")
                )

    @property
    def text(self) -> str:
        """The rule in words."""
        return (
            "Rule, set beforehand. What counts: metrics that no rescaling of layers, neurons or"
            " BatchNorm weights moves, that say which way is flatter, and that neither side was"
            f" trained on (else: circular). Level {self.level:.0%} for all tests that count"
            " together (Holm); those that do not count are corrected by themselves. By pairs"
            f" where seeds are shared: exact sign-flip test up to {FLIPS} seeds where it can reach"
            " the level after correction, else paired t. Without shared seeds: Welch's"
            " t, its p the largest over all ratios of the two spreads, or, where the numbers of"
            " seeds are far apart, the Behrens-Fisher test: that one which asks for the smaller t"
            " at equal spreads."
            f" Flatter or sharper: p (Holm) below {self.level:.0%} and a difference of at least"
            f" {self.margin:.0%} of the baseline's mean. No difference: shown to lie within"
            f" ±{self.margin:.0%} (two one-sided tests of the same kind, same level, Holm; t for"
            " pairs), the error of the baseline's mean included. Else not comparable:"
            f" undecided, with the seeds it would take to find a difference of"
            f" {2 * self.margin:.0%}, or show that there is none, with {self.power:.0%} power."
            f" One seed: no difference where both values agree to {COPY:.1%}, as those of a"
            " rescaled copy do, else not comparable. Overall: flatter if one metric that counts"
            " says so and none says sharper."
        )

    def record(self) -> dict[str, Any]:
        """Its numbers and its words, as plain values."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One metric of a group beside its baseline's.

    Args:
        metric: its name, for the words.
        values: of the group, one a seed; empty or ``None``: no run has it.
        baseline: of the baseline; by pairs in the same order.
        paired: whether the i-th values of both share a seed.
        flatter: which way is flatter: ``lower``, ``higher``, ``None``: neither.
        incomparable_why: why the two can't be compared at all; empty: they can.
        excluded_why: why the metric does not count for the overall verdict; empty: it counts.
        missing: which runs lack the metric, and why; their values are left out.
    """

    metric: str
    values: Sequence[float] | None
    baseline: Sequence[float] | None
    paired: bool
    flatter: str | None = "lower"
    incomparable_why: str = ""
    excluded_why: str = ""
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a case's numbers say.

    Args:
        difference: group minus baseline, or ``None``.
        relative: the same over the baseline's mean size.
        margin: smallest difference that matters, in the metric's unit.
        ci95: t interval of the difference.
        bootstrap95: BCa interval of it.
        p: two-sided, of "no difference".
        p_holm: corrected in its family.
        p_equivalence: of "at least the margin", corrected in its family.
        test: what p is of, in words.
        n: seeds (of the smaller group).
        counts: for the overall verdict.
        verdict: one of the four.
        why: in words.
        seeds_needed: where it is undecided.
    """

    difference: float | None = None
    relative: float | None = None
    margin: float | None = None
    ci95: tuple[float, float] | None = None
    bootstrap95: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    p_equivalence: float | None = None
    test: str = ""
    n: int = 0
    counts: bool = False
    verdict: str = INCOMPARABLE
    why: str = ""
    seeds_needed: int | None = None


def judge(cases: Sequence[Case], rule: Rule, *, bootstrap: bool = True) -> list[Finding]:
    """Every case's finding; those that count and those that don't are two families.

    Args:
        cases: all of one comparison.
        rule: by which.
        bootstrap: intervals too, which decide nothing.
    """
    findings: list[Finding] = [Finding()] * len(cases)
    for counts in (True, False):
        members = [i for i, case in enumerate(cases) if (not case.excluded_why) == counts]
        # only what can be compared is tested, so only that counts in the correction
        size = sum(not cases[i].incomparable_why and _known(cases[i]) for i in members)
        found = [_measured(cases[i], rule, max(size, 1), bootstrap) for i in members]
        tested = [
            one.p if not cases[i].incomparable_why else None
            for i, one in zip(members, found, strict=True)
        ]
        corrected = holm(tested)
        equivalent = holm([one.p_equivalence for one in found])
        for i, one, p, q in zip(members, found, corrected, equivalent, strict=True):
            full = replace(
                one, p_holm=p, p_equivalence=q, counts=counts and not cases[i].incomparable_why
            )
            found_i = _decided(cases[i], full, rule, max(size, 1))
            note = cases[i].missing
            without = note and note not in found_i.why
            findings[i] = replace(found_i, why=f"{found_i.why}; {note}") if without else found_i
    return findings


def p_value(
    values: Sequence[float], baseline: Sequence[float], *, paired: bool, level: float
) -> tuple[float | None, str]:
    """Two-sided p of "no difference" by the best test that can reach a level, and its name.

    Which test it is depends on the numbers of seeds alone.
    """
    n, m = len(values), len(baseline)
    if min(n, m) < 2:
        return None, ""
    if not paired:
        return unpaired_p(values, baseline, level)
    if flips(n, level):
        gaps = [a - b for a, b in zip(values, baseline, strict=True)]
        return sign_flip(gaps), f"exact sign-flip test, {n} seeds"
    return paired_difference(values, baseline).p, f"paired t-test, {n} seeds"


def _known(case: Case) -> bool:
    return bool(case.values) and bool(case.baseline)


def _measured(case: Case, rule: Rule, family: int, bootstrap: bool) -> Finding:
    """The numbers of a case, its p-values not yet corrected."""
    values, baseline = case.values, case.baseline
    if not values or not baseline:
        return Finding()
    test = paired_difference if case.paired else unpaired_difference
    found = test(values, baseline)
    size = abs(float(np.mean(baseline)))
    margin = rule.margin * size
    finding = Finding(
        difference=found.mean,
        relative=found.mean / size if size else None,
        margin=margin,
        ci95=found.ci95,
        bootstrap95=bootstrap_interval(values, baseline, case.paired) if bootstrap else None,
        n=found.n,
    )
    level = rule.level / family
    p, name = p_value(values, baseline, paired=case.paired, level=level)
    equivalence = (
        None
        if case.incomparable_why
        else equivalence_p(values, baseline, rule.margin, case.paired, level)
    )
    return replace(finding, p=p, p_equivalence=equivalence, test=name)


def _decided(case: Case, found: Finding, rule: Rule, family: int) -> Finding:
    if case.incomparable_why:
        return replace(found, why=case.incomparable_why)
    if found.difference is None:
        lacking = f"{case.metric} is missing or not finite in some runs"
        return replace(found, why=case.missing or lacking)
    if found.n < 2 and found.relative is not None and abs(found.relative) <= COPY:
        why = f"one seed, but {case.metric} agrees to {COPY:.1%}: the same function"
        return replace(found, verdict=SAME, why=why)
    if found.n < 2:
        return replace(found, why="one seed carries no interval: train at least two")
    margin = f"{rule.margin:.0%}"
    if found.p_equivalence is not None and found.p_equivalence < rule.level:
        p = f"{found.p_equivalence:.2g}"
        why = f"shown to lie within ±{margin} of the baseline's mean (Holm-corrected p = {p})"
        return replace(found, verdict=SAME, why=why)
    if found.p_holm is None:
        return replace(found, why="all differences are equal: no spread to test them by")
    numbers = f"{found.test}, Holm-corrected p = {found.p_holm:.2g}"
    differs = f"{case.metric} differs by {found.difference:+.3g}{_percent(found)} ({numbers})"
    significant = found.p_holm < rule.level
    if significant and abs(found.difference) >= (found.margin or 0.0):
        if case.flatter is None:
            return replace(found, why=f"{differs}, which is neither flatter nor sharper")
        lower = found.difference < 0
        word = FLATTER if lower == (case.flatter == "lower") else SHARPER
        return replace(found, verdict=word, why=differs)
    needed = _needed(case, rule, family)
    shown = (
        f"{differs}, less than the {margin} that matter, but not shown to be"
        if significant
        else f"neither a difference nor its absence within ±{margin} is shown ({numbers})"
    )
    return replace(found, why=f"undecided: {shown}; {_seeds(needed, rule)}", seeds_needed=needed)


def _percent(found: Finding) -> str:
    return "" if found.relative is None else f" or {found.relative:+.1%}"


def _seeds(needed: int | None, rule: Rule) -> str:
    effect = f"a difference of {2 * rule.margin:.0%}, or show that there is none"
    count = "more than 1000" if needed is None else f"about {needed}"
    return f"{count} seeds would be needed to find {effect}, with {rule.power:.0%} power"


def _needed(case: Case, rule: Rule, family: int) -> int | None:
    """Seeds by the spread that was seen; Bonferroni's correction, which is on the safe side."""
    a, b = np.asarray(case.values, dtype=float), np.asarray(case.baseline, dtype=float)

    def spread(factor: float) -> float:
        """Of a − factor · b; of the values, not of their mean."""
        if case.paired:
            return float((a - factor * b).std(ddof=1))
        return math.hypot(float(a.std(ddof=1)), factor * float(b.std(ddof=1)))

    margin = rule.margin * abs(float(b.mean()))
    whole = spread(1.0)
    return seeds_needed(
        whole,
        margin,
        2 * margin,
        rule.level / family,
        rule.power,
        1 if case.paired else 2,
        share=(float(a.std(ddof=1)) / whole) ** 2 if whole else 0.5,
        contrast=max(spread(1 + rule.margin), spread(1 - rule.margin)),
    )
