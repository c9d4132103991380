"""The answer to a study's question in one sentence, composed from its numbers."""

from collections.abc import Sequence
from typing import Any

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.report.comparison import NAMES
from ssgd_analysis.studies.spec import Study

# The tests judge a rival against the focus; the sentence speaks of the focus.
FLATNESS = {
    "sharper": "flatter than",
    "flatter": "sharper than",
    "no difference": "not shown to differ from",
    "not comparable": "not comparable with",
}
OUTCOME = {
    "lower": "higher than",
    "higher": "lower than",
    "no difference": "not shown to differ from",
    "unknown": "without interval against",
}


def study_verdict(study: Study, result: dict[str, Any]) -> str:
    """One sentence: is the focus flatter than each rival, and does it matter for accuracy?

    Flatness is judged at matched train loss, as raw curvature at different losses says nothing,
    by the study's first flatness metric and its first scale-invariant one.

    Args:
        study: gives the focus and the metrics.
        result: with ``matched_tests``, ``outcomes`` and ``groups``.
    """
    clauses = []
    flatness = [metric for metric in study.metrics if metric in METRICS]
    invariant = [metric for metric in flatness if METRICS[metric].invariant_to]
    known = {group["name"] for group in result["groups"]}
    for setting in study.settings:
        if _name(study.focus, setting.name) not in known:
            clauses.append(f"{setting.name}: all its runs failed")
            continue
        parts = [
            f"by {NAMES.get(metric, metric)} at matched train loss it is "
            + _relations(result["matched_tests"], metric, study, setting.name, FLATNESS)
            for metric in dict.fromkeys([*flatness[:1], *invariant[:1]])
        ]
        if "test_accuracy" in study.metrics:
            mean = _accuracy(result, _name(study.focus, setting.name))
            parts.append(
                f"its test accuracy ({mean}) is "
                + _relations(result["outcomes"], "test_accuracy", study, setting.name, OUTCOME)
            )
        where = f"{setting.name}: " if setting.name else ""
        clauses.append(where + "; ".join(parts))
    failed = len(result["failures"])
    loss = f"; {failed} runs failed and are left out" if failed else ""
    count = len(study.seeds)
    seeds = "one seed, so no intervals" if count == 1 else f"{count} seeds"
    return f"{study.focus} ({seeds}, 5% level, Holm-corrected){loss} – " + " | ".join(clauses) + "."


def _relations(
    tests: Sequence[dict[str, Any]],
    metric: str,
    study: Study,
    setting: str,
    words: dict[str, str],
) -> str:
    """As in: flatter than A, B, not shown to differ from C."""
    rivals = {_name(arm.label, setting): arm.label for arm in study.arms}
    parts = []
    for verdict, word in words.items():
        names = [
            rivals[test["group"]]
            for test in tests
            if test["metric"] == metric and test["verdict"] == verdict and test["group"] in rivals
        ]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    return ", ".join(parts) or "without a rival to compare with"


def _accuracy(result: dict[str, Any], name: str) -> str:
    for group in result["groups"]:
        if group["name"] == name and group["metrics"]["test_accuracy"]["mean"] is not None:
            return f"{100 * group['metrics']['test_accuracy']['mean']:.1f}%"
    return "unknown"


def _name(label: str, setting: str) -> str:
    return f"{label}, {setting}" if setting else label
