"""Groups of runs against a baseline, with verdicts that are true to the numbers."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from ssgd_analysis.compare.circular import circular
from ssgd_analysis.compare.groups import Group, unlike
from ssgd_analysis.compare.measurements import check_metric, is_flatness
from ssgd_analysis.compare.networks import unlike_networks
from ssgd_analysis.compare.overall import overall_verdict
from ssgd_analysis.compare.pairs import Pair, RunCheckpoint, TrainLoss, pairs_of, recorded_loss
from ssgd_analysis.compare.rule import Case, Finding, Rule, judge, p_value
from ssgd_analysis.compare.statistics import (
    holm,
    interval,
    paired_difference,
    unpaired_difference,
)
from ssgd_analysis.compare.values import (
    Measure,
    Why,
    known_values,
    missing_runs,
    seed_values,
    without,
)
from ssgd_analysis.flatness import METRICS, resolve

LOSS_TOLERANCE = 0.1
DEFAULT_METRICS = (
    "test_accuracy",
    "train_loss",
    *(name for name, metric in METRICS.items() if metric.compared),
)
VERDICTS = ("flatter", "sharper", "no difference", "not comparable")


def compare(
    groups: Sequence[Group],
    measure: Measure,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    baseline: str | None = None,
    loss_tolerance: float = LOSS_TOLERANCE,
    match_loss: bool = False,
    match_by: str = "checkpoints",
    rule: Rule | None = None,
    train_loss: TrainLoss = recorded_loss,
    why: Why = lambda run, metric: "",
    optional: Collection[str] = (),
) -> dict[str, Any]:
    """Compare every group with its baseline, metric by metric, by a rule set beforehand.

    Two groups are paired by seed; with no common seed all runs count. Where the mean train losses
    differ by more than the tolerance, curvature says nothing about the methods, and the verdict is
    ``not comparable``; with ``match_loss`` the run that fits better is judged at the other's train
    loss. Nor are groups comparable that differ in data, model or loss.

    Args:
        groups: from :func:`group_runs`.
        measure: gives a metric of a run at a step (``None``: the final one); as
            :class:`ssgd_analysis.compare.measurements.Measurements`.
        metrics: flatness metrics, maybe with settings as ``expected:sigma=0.2``, and names of
            the history.
        baseline: method, label or name of a group; default ``sgd``, or else the first group.
        loss_tolerance: largest allowed difference of train losses, relative to the larger.
        match_loss: compare at equal train loss.
        match_by: how: ``checkpoints``, that kept one whose train loss is nearest; or
            ``temperature``, final weights with logits scaled to it.
        rule: when one is called flatter; see :class:`Rule`.
        train_loss: of a run at a step.
        why: a run has no value of a metric, in words; empty: it was not refused.
        optional: metrics that every run may refuse.

    Returns:
        The JSON object of the ``compare`` command. A metric that a run lacks is missing for that
        run only; which and why stands under ``missing``.

    Raises:
        InputError: an unknown metric, baseline or way to match; or a metric that is not optional
            and refused by every run.
    """
    rule = rule or Rule()
    metrics = list(dict.fromkeys(metrics))
    for metric in metrics:
        check_metric(metric)
    pairs = pairs_of(groups, baseline, match_by if match_loss else "", train_loss)
    flatness = [metric for metric in metrics if is_flatness(metric)]
    outcome = [metric for metric in metrics if not is_flatness(metric)]
    summaries = [_summary(group, metrics, measure) for group in groups]
    missing = missing_runs(groups, metrics, measure, why, optional)
    tests, verdicts = _tests(pairs, flatness, measure, loss_tolerance, rule, why)
    return {
        "groups": summaries,
        "missing": missing,
        "tests": tests,
        "overall": verdicts,
        "outcomes": _outcomes(pairs, outcome, measure, rule),
        "notes": {m: note for m in flatness if (note := METRICS[m.partition(":")[0]].note)},
        "rule": rule.record(),
        "loss_tolerance": loss_tolerance,
        "matched_loss": match_loss,
        "matched_by": match_by if match_loss else None,
        "verdict": _sentence(tests, verdicts)
        if pairs
        else "Nothing to compare: there is only one group.",
    }


def _summary(group: Group, metrics: Sequence[str], measure: Measure) -> dict[str, Any]:
    found = {}
    for metric, known in seed_values(group, metrics, measure).items():
        if known:
            result = interval(known)
            found[metric] = {"mean": result.mean, "ci95": result.ci95, "n": result.n}
        else:
            found[metric] = {"mean": None, "ci95": None, "n": 0}
    return {
        "name": group.name,
        "method": group.config.method,
        "seeds": list(group.runs),
        "runs": [str(run.folder) for run in group.runs.values()],
        "metrics": found,
    }


def _barred(pair: Pair, tolerance: float) -> str:
    """Why two groups can't be compared by any metric; empty where they can."""
    if differ := unlike(pair.group.config, pair.baseline.config):
        return f"the groups differ in {differ}: another problem tells nothing of the methods"
    if differ := unlike_networks(*([p.run.final for p in side] for side in pair.sides)):
        return f"the networks differ in {differ}: other weights, whose flatness is another measure"
    a, b = pair.losses
    if math.isnan(a + b):
        return "the train loss of some runs is not known, so that it may differ"
    apart = f"train losses {a:.4g} and {b:.4g} differ by {pair.loss_gap:.0%}"
    if pair.loss_gap <= tolerance < pair.pair_gap:
        apart = (
            f"the pairs' own train losses differ by {pair.pair_gap:.0%} on average, though the mean"
            f" {apart}"
        )
    if max(pair.loss_gap, pair.pair_gap) > tolerance:
        return (
            f"{apart}; at most {tolerance:.0%} is allowed, as at different losses flatness tells"
            " nothing of the methods"
            " (--match-loss takes runs that were trained with --save-every back to the same loss,"
            " --match-by temperature scales the logits)"
        )
    return ""


def excluded_why(metric: str, pair: Pair) -> tuple[str, str]:
    """Why a metric does not count for the overall verdict, and the part that is circularity."""
    name, given = resolve(metric)
    entry = METRICS[name]
    settings = {**entry.defaults, **given}
    ring = "; ".join(
        filter(None, (circular(metric, g.config) for g in (pair.group, pair.baseline)))
    )
    if ring:
        return f"circular: {ring}", ring
    if entry.flatter is None:
        return "it does not say which way is flatter", ""
    if not entry.invariant(settings):
        return "rescaling weights moves it and leaves the function as it is", ""
    return "", ""


def _tests(
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    measure: Measure,
    tolerance: float,
    rule: Rule,
    why: Why,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every metric of every pair, and every pair's overall verdict."""
    whys = [_barred(pair, tolerance) for pair in pairs]
    rows = [(metric, index) for metric in metrics for index in range(len(pairs))]
    cases = [_case(metric, pairs[index], measure, whys[index], why) for metric, index in rows]
    findings = judge(cases, rule)
    tests = [
        _record(metric, pairs[index], case, finding)
        for (metric, index), case, finding in zip(rows, cases, findings, strict=True)
    ]
    verdicts = []
    for index, pair in enumerate(pairs if metrics else ()):
        own = [i for i, (_, place) in enumerate(rows) if place == index]
        verdict, reason, needed = overall_verdict(
            [cases[i] for i in own], [findings[i] for i in own], incomparable_why=whys[index]
        )
        verdicts.append(
            {
                "group": pair.group.name,
                "baseline": pair.baseline.name,
                "verdict": verdict,
                "why": reason,
                "by": [
                    cases[i].metric
                    for i in own
                    if findings[i].counts and findings[i].verdict == verdict
                ],
                "counted": [cases[i].metric for i in own if findings[i].counts],
                "seeds_needed": needed,
            }
        )
    return tests, verdicts


def _case(metric: str, pair: Pair, measure: Measure, incomparable_why: str, why: Why) -> Case:
    sides, lacking = known_values(pair.sides, metric, measure, pair.paired)
    unmatched = any(not why(place.run, metric) for place in lacking)
    if not incomparable_why and unmatched and pair.matched == "temperature":
        incomparable_why = (
            f"no temperature brings both to the train loss {max(pair.final_losses):.4g}"
        )
    return Case(
        metric=metric,
        values=sides[0],
        baseline=sides[1],
        paired=pair.paired,
        flatter=METRICS[resolve(metric)[0]].flatter,
        incomparable_why=incomparable_why,
        excluded_why=excluded_why(metric, pair)[0],
        missing=without(lacking, metric, why),
    )


def _record(metric: str, pair: Pair, case: Case, finding: Finding) -> dict[str, Any]:
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


def _outcomes(
    pairs: Sequence[Pair], metrics: Sequence[str], measure: Measure, rule: Rule
) -> list[dict[str, Any]]:
    """The same for what is no flatness metric: accuracy, losses. Always at the final weights.

    Corrected metric by metric: what was spent or how large the weights grew is no rival
    question to accuracy.
    """
    outcomes = []
    for metric in metrics:
        finals = [[[RunCheckpoint(p.run) for p in side] for side in pair.sides] for pair in pairs]
        found = [
            known_values((sides[0], sides[1]), metric, measure, pair.paired)[0]
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


def _direction(difference: float | None, p: float | None, rule: Rule) -> str:
    if p is None or difference is None:
        return "unknown"
    if p >= rule.level:
        return "no difference"
    return "higher" if difference > 0 else "lower"


def _sentence(tests: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]]) -> str:
    """All verdicts in words: overall, then metric by metric."""
    if not tests:
        return "No flatness metric was asked for; see the outcomes."
    parts = [
        f"overall, {one['group']} against {one['baseline']}: {one['verdict']} ({one['why']})"
        for one in verdicts
    ]
    for metric in dict.fromkeys(test["metric"] for test in tests):
        words = []
        for verdict in VERDICTS:
            names = [
                f"{t['group']} (vs {t['baseline']})"
                for t in tests
                if t["metric"] == metric and t["verdict"] == verdict
            ]
            if names:
                words.append(f"{verdict}: {', '.join(names)}")
        parts.append(f"by {metric}, {'; '.join(words)}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."
