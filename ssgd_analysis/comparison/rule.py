"""The rule by which flatness is judged: fixed before the numbers are known, and printed."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ssgd_analysis.comparison.power import seeds_needed
from ssgd_analysis.comparison.resampling import (
    FLIPS,
    bootstrap_interval,
    flips,
    sign_flip,
)
from ssgd_analysis.comparison.statistics import (
    equivalence_p,
    holm,
    paired_difference,
    unpaired_difference,
    unpaired_p,
)
from ssgd_analysis.settings.comparison import VerdictRule

FLATTER, SHARPER, SAME = "flatter", "sharper", "no difference"
UNDECIDED, INCOMPARABLE = "undecided", "not comparable"
VERDICTS = (FLATTER, SHARPER, SAME, UNDECIDED, INCOMPARABLE)
FEWEST = 2  # seeds that carry an interval
COPY = 1e-3  # relative; two runs never agree so well, a rescaled copy in float32 does


def rule_text(rule: VerdictRule) -> str:
    """The rule in words."""
    return (
        "The rule was fixed before the numbers were known. A metric counts if rescaling layers,"
        " neurons or BatchNorm weights does not change it, if it says which direction is"
        " flatter, and if neither method was trained on it (otherwise it is circular). The"
        f" level is {rule.level:.0%} for all metrics that count, together (Holm's correction);"
        " the other metrics are corrected separately. Groups that share seeds are compared in"
        f" pairs: by the exact sign-flip test for up to {FLIPS} seeds if it can reach the level"
        " after correction, otherwise by the paired t-test. Groups without shared seeds are"
        " compared by Welch's t-test, its p the largest over all ratios of the two spreads, or,"
        " if the numbers of seeds are far apart, by the Behrens-Fisher test, whichever needs"
        " the smaller t at equal spreads. Flatter or sharper: the Holm-corrected p is below"
        f" {rule.level:.0%}, and the difference is at least {rule.margin:.0%} of the baseline's"
        " mean. No difference: the difference is shown to lie within"
        f" ±{rule.margin:.0%} of the baseline's mean, whose own error is included (two"
        " one-sided tests of the same kind and level, Holm-corrected; t-tests for pairs)."
        " Otherwise the result is undecided, and the number of seeds is given that would find"
        f" a difference of {2 * rule.margin:.0%}, or show that there is none, with"
        f" {rule.power:.0%} power. With one seed the verdict is no difference if both values"
        f" agree to {COPY:.1%}, as those of a rescaled copy do, and undecided otherwise. Not"
        " comparable: data, model, loss or train losses differ, or no metric counts. Overall,"
        " a group is flatter if at least one metric that counts says so and none says sharper."
    )


def rule_record(rule: VerdictRule) -> dict[str, Any]:
    """The rule's numbers and its words, as plain values."""
    return {**asdict(rule), "text": rule_text(rule)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One metric of a group beside its baseline's.

    Args:
        metric: its name, for the text.
        values: of the group, one a seed; empty or ``None``: no run has it.
        baseline: of the baseline; by pairs in the same order.
        paired: whether the i-th values of both share a seed.
        flatter: whether ``lower`` or ``higher`` values are flatter; ``None``: neither.
        incomparable_why: why no metric can compare the two; empty: they are comparable.
        excluded_why: why this metric does not count overall; empty: it counts.
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
        test: the name of the test that gave p.
        n: seeds (of the smaller group).
        counts: whether it counts for the overall verdict.
        verdict: one of :data:`VERDICTS`.
        why: the reason, in words.
        seeds_needed: to decide it, where it is undecided; :data:`FEWEST` with one seed, whose
            spread is not known; ``None``: more than 1000, or there is no spread to plan by.
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


def judge(cases: Sequence[Case], rule: VerdictRule, *, bootstrap: bool = True) -> list[Finding]:
    """Every case's finding; those that count and those that don't are two families.

    Args:
        cases: all cases of one comparison.
        rule: decides.
        bootstrap: also compute bootstrap intervals, which no verdict depends on.
    """
    findings: list[Finding] = [Finding()] * len(cases)
    for counts in (True, False):
        members = [i for i, case in enumerate(cases) if (not case.excluded_why) == counts]
        # only what can be compared is tested, so only that counts in the correction
        size = sum(not cases[i].incomparable_why and _has_values(cases[i]) for i in members)
        found = [_numbers(cases[i], rule, max(size, 1), bootstrap) for i in members]
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
            decided = _with_verdict(cases[i], full, rule, max(size, 1))
            note = cases[i].missing
            lacks = note and note not in decided.why
            findings[i] = replace(decided, why=f"{decided.why}; {note}") if lacks else decided
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


def _has_values(case: Case) -> bool:
    return bool(case.values) and bool(case.baseline)


def _numbers(case: Case, rule: VerdictRule, family: int, bootstrap: bool) -> Finding:
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


def _with_verdict(case: Case, found: Finding, rule: VerdictRule, family: int) -> Finding:
    """The finding with its verdict and the reason."""
    if case.incomparable_why:
        return replace(found, why=case.incomparable_why)
    if found.difference is None:
        reason = f"{case.metric} is missing or not finite in some runs"
        return replace(found, why=case.missing or reason)
    if found.n < 2 and found.relative is not None and abs(found.relative) <= COPY:
        why = f"one seed, but {case.metric} agrees to {COPY:.1%}, as in copies of one function"
        return replace(found, verdict=SAME, why=why)
    if found.n < 2:
        why = f"one seed gives no interval, and at least {FEWEST} are needed"
        return replace(found, verdict=UNDECIDED, why=why, seeds_needed=FEWEST)
    margin = f"{rule.margin:.0%}"
    if found.p_equivalence is not None and found.p_equivalence < rule.level:
        p = f"{found.p_equivalence:.2g}"
        why = f"shown to lie within ±{margin} of the baseline's mean (Holm-corrected p = {p})"
        return replace(found, verdict=SAME, why=why)
    if found.p_holm is None:
        why = "all differences are equal, so there is no spread to test them by"
        return replace(found, verdict=UNDECIDED, why=why)
    numbers = f"{found.test}, Holm-corrected p = {found.p_holm:.2g}"
    differs = f"{case.metric} differs by {found.difference:+.3g}{_relative_text(found)} ({numbers})"
    significant = found.p_holm < rule.level
    if significant and abs(found.difference) >= (found.margin or 0.0):
        if case.flatter is None:
            return replace(found, why=f"{differs}, which is neither flatter nor sharper")
        lower = found.difference < 0
        word = FLATTER if lower == (case.flatter == "lower") else SHARPER
        return replace(found, verdict=word, why=differs)
    needed = _needed(case, rule, family)
    shown = (
        f"{differs}, less than the margin of {margin}, but is not shown to lie within it"
        if significant
        else f"neither a difference nor its absence (within ±{margin}) is shown ({numbers})"
    )
    why = f"{shown}; {_seeds(needed, rule)}"
    return replace(found, verdict=UNDECIDED, why=why, seeds_needed=needed)


def _relative_text(found: Finding) -> str:
    return "" if found.relative is None else f" or {found.relative:+.1%}"


def _seeds(needed: int | None, rule: VerdictRule) -> str:
    effect = f"a difference of {2 * rule.margin:.0%}, or to show that there is none"
    count = "more than 1000" if needed is None else f"about {needed}"
    return f"{count} seeds are needed to find {effect}, with {rule.power:.0%} power"


def _needed(case: Case, rule: VerdictRule, family: int) -> int | None:
    """Seeds needed at the observed spread; Bonferroni's correction errs on the safe side."""
    a, b = np.asarray(case.values, dtype=float), np.asarray(case.baseline, dtype=float)

    def spread(factor: float) -> float:
        """Standard deviation of a − factor · b: of single values, not of their mean."""
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
