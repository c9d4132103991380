"""Every flatness metric of every pair of groups, tested and judged by the rule."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ssgd_analysis.comparison.exclusions import Obstacle, excluded_why
from ssgd_analysis.comparison.overall import overall_verdict
from ssgd_analysis.comparison.pairs import Pair
from ssgd_analysis.comparison.rule import Case, Finding, judge
from ssgd_analysis.comparison.values import MetricSource, paired_values, without
from ssgd_analysis.flatness import METRICS, parse_metric
from ssgd_analysis.settings.comparison import VerdictRule

Rows = list[dict[str, Any]]


def flatness_tests(
    pairs: Sequence[Pair],
    obstacles: Sequence[Obstacle | None],
    metrics: Sequence[str],
    source: MetricSource,
    *,
    rule: VerdictRule,
) -> tuple[Rows, Rows]:
    """Test every metric of every pair, and give every pair's overall verdict.

    Args:
        pairs: groups with their baselines.
        obstacles: of each pair.
        metrics: flatness metrics, maybe with settings.
        source: gives their values.
        rule: decides.

    Returns:
        One row a test, metric by metric; and one row a pair.
    """
    rows = [(metric, index) for metric in metrics for index in range(len(pairs))]
    cases = [_case(metric, pairs[index], source, obstacles[index]) for metric, index in rows]
    findings = judge(cases, rule)
    tests = [
        _row(metric, pairs[index], case, finding)
        for (metric, index), case, finding in zip(rows, cases, findings, strict=True)
    ]
    overall = []
    for index, pair in enumerate(pairs if metrics else ()):
        own = [i for i, (_, pair_index) in enumerate(rows) if pair_index == index]
        own_cases, own_findings = [cases[i] for i in own], [findings[i] for i in own]
        overall.append(_overall(pair, own_cases, own_findings, obstacles[index]))
    return tests, overall


def _case(metric: str, pair: Pair, source: MetricSource, found: Obstacle | None) -> Case:
    reason = found.why if found else ""
    sides, without_value = paired_values(pair.sides, metric, source, pair.paired)
    unmatched = any(not source.why(checkpoint.run, metric) for checkpoint in without_value)
    if not reason and unmatched and pair.matched == "temperature":
        reason = f"no temperature brings both to the train loss {max(pair.final_losses):.4g}"
    return Case(
        metric=metric,
        values=sides[0],
        baseline=sides[1],
        paired=pair.paired,
        flatter=METRICS[parse_metric(metric)[0]].flatter,
        incomparable_why=reason,
        excluded_why=excluded_why(metric, pair)[0],
        missing=without(without_value, metric, source),
    )


def _row(metric: str, pair: Pair, case: Case, finding: Finding) -> dict[str, Any]:
    return {
        "metric": metric,
        "group": pair.group.name,
        "baseline": pair.baseline.name,
        **dataclasses.asdict(finding),
        "paired": None if finding.difference is None else pair.paired,
        "excluded_why": case.excluded_why,
        "circular": excluded_why(metric, pair)[1],
        "train_loss": pair.losses,
        "final_train_loss": pair.final_losses,
        "loss_gap": pair.loss_gap,
        "pair_loss_gap": pair.pair_gap,
        "missing": case.missing,
        "steps": [[a.step, b.step] for a, b in zip(*pair.sides, strict=True)]
        if pair.paired
        else [],
    }


def _overall(
    pair: Pair, cases: Sequence[Case], findings: Sequence[Finding], found: Obstacle | None
) -> dict[str, Any]:
    if not found and all(case.incomparable_why for case in cases):  # no temperature matches them
        found = Obstacle("losses", cases[0].incomparable_why)
    reason = found.why if found else ""
    verdict, why, needed = overall_verdict(cases, findings, incomparable_why=reason)
    counted = [(c.metric, f) for c, f in zip(cases, findings, strict=True) if f.counts]
    return {
        "group": pair.group.name,
        "baseline": pair.baseline.name,
        "verdict": verdict,
        "why": why,
        "by": [metric for metric, finding in counted if finding.verdict == verdict],
        "counted": [metric for metric, _ in counted],
        "seeds_needed": needed,
        "obstacle": found.kind if found else "" if counted else "nothing counts",
        "train_loss": pair.losses,
    }
