"""Groups of runs against a baseline, with verdicts that are true to the numbers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ssgd_analysis.compare.groups import Group, unlike
from ssgd_analysis.compare.measurements import check_metric
from ssgd_analysis.compare.pairs import Pair, pairs_of
from ssgd_analysis.compare.statistics import (
    Difference,
    holm,
    interval,
    paired_difference,
    welch_difference,
)
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.training import Run

LEVEL = 0.05
LOSS_TOLERANCE = 0.1
DEFAULT_METRICS = ("test_accuracy", "train_loss", "lambda_max", "trace", "adaptive_worst")

Measure = Callable[[Run, str, int | None], float | None]


def compare(
    groups: Sequence[Group],
    measure: Measure,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    baseline: str | None = None,
    loss_tolerance: float = LOSS_TOLERANCE,
    match_loss: bool = False,
) -> dict[str, Any]:
    """Compare every group with its baseline, metric by metric.

    Two groups are paired by seed; with no common seed, Welch's test is used. p-values of
    flatness metrics are corrected together (Holm). Where the mean train losses differ by more
    than the tolerance, curvature says nothing about the methods, and the verdict is ``not
    comparable``; with ``match_loss`` the run that fits better is judged at that kept
    checkpoint whose train loss is nearest to the other's final one. Nor are groups comparable
    that differ in data, model or loss.

    Args:
        groups: from :func:`group_runs`.
        measure: gives a metric of a run at a step (``None``: the final one).
        metrics: flatness metrics, and names of the history.
        baseline: method, label or name of a group; default ``sgd``, or else the first group.
        loss_tolerance: largest allowed difference of train losses, relative to the larger.
        match_loss: see above.

    Returns:
        The JSON object of the ``compare`` command.

    Raises:
        InputError: an unknown metric or baseline.
    """
    metrics = list(dict.fromkeys(metrics))
    for metric in metrics:
        check_metric(metric)
    pairs = pairs_of(groups, baseline, match_loss)
    flatness = [metric for metric in metrics if metric in METRICS]
    outcome = [metric for metric in metrics if metric not in METRICS]
    tests = _tests(pairs, flatness, measure, loss_tolerance)
    return {
        "groups": [_summary(group, metrics, measure) for group in groups],
        "tests": tests,
        "outcomes": _outcomes(pairs, outcome, measure),
        "loss_tolerance": loss_tolerance,
        "matched_loss": match_loss,
        "verdict": _sentence(tests) if pairs else "Nothing to compare: there is only one group.",
    }


def seed_values(group: Group, metrics: Sequence[str], measure: Measure) -> dict[str, list[float]]:
    """Metric → its values at the final weights, seed by seed; missing ones are left out."""
    found = {
        metric: [measure(run, metric, None) for run in group.runs.values()] for metric in metrics
    }
    return {metric: [v for v in values if v is not None] for metric, values in found.items()}


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


def _difference(pair: Pair, metric: str, measure: Measure) -> Difference | None:
    """Group minus baseline, or ``None`` where a value is missing."""
    if pair.steps:
        sides = [[measure(*_at(p[side], metric)) for p in pair.steps] for side in (0, 1)]
        test = paired_difference
    else:
        sides = [
            [measure(run, metric, None) for run in group.runs.values()]
            for group in (pair.group, pair.baseline)
        ]
        test = welch_difference
    values, base = sides
    if any(value is None for value in values + base):
        return None
    return test([v for v in values if v is not None], [v for v in base if v is not None])


def _at(place: tuple[Run, int | None], metric: str) -> tuple[Run, str, int | None]:
    return place[0], metric, place[1]


def _tests(
    pairs: Sequence[Pair], metrics: Sequence[str], measure: Measure, tolerance: float
) -> list[dict[str, Any]]:
    cases = [
        (metric, pair, _difference(pair, metric, measure)) for metric in metrics for pair in pairs
    ]
    # only comparable cases are tested, so only they count as tests in the correction
    valid = [
        d is not None
        and pair.loss_gap <= tolerance
        and not unlike(pair.group.config, pair.baseline.config)
        for _, pair, d in cases
    ]
    corrected = holm(
        [d.p if ok and d else None for ok, (_, _, d) in zip(valid, cases, strict=True)]
    )
    tests = []
    for (metric, pair, found), p_holm in zip(cases, corrected, strict=True):
        verdict, why = _judge(metric, pair, found, p_holm, tolerance)
        tests.append(
            {
                **_numbers(metric, pair, found, p_holm),
                "paired": None if found is None else found.paired,
                "n": 0 if found is None else found.n,
                "train_loss": pair.losses,
                "steps": [[a[1], b[1]] for a, b in pair.steps],
                "verdict": verdict,
                "why": why,
            }
        )
    return tests


def _numbers(
    metric: str, pair: Pair, found: Difference | None, p_holm: float | None
) -> dict[str, Any]:
    """What every test reports, whatever its verdict is called."""
    return {
        "metric": metric,
        "group": pair.group.name,
        "baseline": pair.baseline.name,
        "difference": None if found is None else found.mean,
        "ci95": None if found is None else found.ci95,
        "p": None if found is None else found.p,
        "p_holm": p_holm,
    }


def _judge(
    metric: str, pair: Pair, found: Difference | None, p_holm: float | None, tolerance: float
) -> tuple[str, str]:
    if differ := unlike(pair.group.config, pair.baseline.config):
        return "not comparable", (
            f"the groups differ in {differ}: {metric} of another problem tells nothing of the"
            " methods"
        )
    a, b = pair.losses
    if pair.loss_gap > tolerance:
        return "not comparable", (
            f"train losses {a:.4g} and {b:.4g} differ by {pair.loss_gap:.0%}, more than"
            f" {tolerance:.0%}: at different losses {metric} tells nothing of the methods"
            " (--match-loss compares runs that were trained with --save-every)"
        )
    if found is None:
        return "not comparable", f"{metric} is missing in some runs"
    if p_holm is None and found.n < 2:
        return "not comparable", "one seed carries no interval: train at least two"
    if p_holm is None:
        return "not comparable", "all differences are equal: no spread to test them by"
    kind = "paired" if found.paired else "Welch"
    numbers = f"{kind} t-test over {found.n} seeds, Holm-corrected p = {p_holm:.2g}"
    if p_holm >= LEVEL:
        return "no difference", f"none shown at the 5% level ({numbers})"
    word = "flatter" if found.mean < 0 else "sharper"
    return word, f"{metric} differs by {found.mean:+.3g} ({numbers})"


def _outcomes(
    pairs: Sequence[Pair], metrics: Sequence[str], measure: Measure
) -> list[dict[str, Any]]:
    """The same for what is no flatness metric: accuracy, losses. Always at the final weights.

    Corrected metric by metric: what was spent or how large the weights grew is no rival
    question to accuracy.
    """
    finals = [
        dataclasses.replace(p, steps=[((a[0], None), (b[0], None)) for a, b in p.steps])
        for p in pairs
    ]
    cases = [
        (metric, pair, _difference(pair, metric, measure)) for metric in metrics for pair in finals
    ]
    corrected: list[float | None] = []
    for metric in metrics:
        corrected += holm([d.p if d else None for name, _, d in cases if name == metric])
    outcomes = []
    for (metric, pair, found), p_holm in zip(cases, corrected, strict=True):
        if p_holm is None or found is None:
            verdict = "unknown"
        elif p_holm >= LEVEL:
            verdict = "no difference"
        else:
            verdict = "higher" if found.mean > 0 else "lower"
        outcomes.append({**_numbers(metric, pair, found, p_holm), "verdict": verdict})
    return outcomes


def _sentence(tests: Sequence[dict[str, Any]]) -> str:
    """All verdicts in one sentence, metric by metric."""
    if not tests:
        return "No flatness metric was asked for; see the outcomes."
    parts = []
    for metric in dict.fromkeys(test["metric"] for test in tests):
        words = []
        for verdict in ("flatter", "sharper", "no difference", "not comparable"):
            names = [
                f"{t['group']} (vs {t['baseline']})"
                for t in tests
                if t["metric"] == metric and t["verdict"] == verdict
            ]
            if names:
                words.append(f"{verdict}: {', '.join(names)}")
        parts.append(f"by {metric}, {'; '.join(words)}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."
