"""Is the focus flatter than each rival at matched train loss, and is it more accurate?"""

from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.studies.questions.answer import (
    Answer,
    Question,
    Values,
    all_gains,
    corrected,
    count_failures,
)
from ssgd_analysis.studies.spec import Study, group_name

# The tests compare a rival with the focus; the sentence speaks of the focus.
FLATNESS = {
    "sharper": "flatter than",
    "flatter": "sharper than",
    "no difference": "no different from",
    "undecided": "undecided against",
    "not comparable": "not comparable with",
}
OUTCOME = {
    "lower": "higher than that of",
    "higher": "lower than that of",
    "not shown to differ": "not shown to differ from that of",
    "not measured": "not measured against that of",
}


class Rivals(Question):
    """Is the focus flatter than each rival at matched train loss, and is it more accurate?"""

    mentions_failures = True

    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """See :meth:`Question.answer`."""
        # one family, as in the sentence: every rival in every setting
        table = corrected(all_gains(study, values))
        record = {"gains": [gain.record() for gain in table], "family": "all rivals and settings"}
        return Answer(study_verdict(study, result), record)


def study_verdict(study: Study, result: Mapping[str, Any]) -> str:
    """One sentence: is the focus flatter than each rival, and does it matter for accuracy?

    Flatness is judged at matched train loss, as curvature at different losses says nothing, by the
    rule of ``compare``: metrics that a rescaling moves, or that a method trained on, do not count.
    A study that does not match losses is judged at the final weights, and says so.

    Args:
        study: gives the focus and the arms.
        result: with ``matched_overall``, ``rule``, ``outcomes`` and ``groups``.
    """
    clauses = []
    names = {group["name"] for group in result["groups"]}
    verdicts = result["matched_overall" if study.matched else "overall"]
    weights = "matched train loss" if study.matched else "the final weights"
    counted = dict.fromkeys(_label(metric) for one in verdicts for metric in one["counted"])
    for setting in study.settings:
        if group_name(study.focus, setting.name) not in names:
            clauses.append(f"{setting.name}: all its runs failed")
            continue
        parts = []
        if verdicts:
            words = _relations(verdicts, study, setting.name, FLATNESS)
            judges = f", by the metrics that count ({', '.join(counted)})," if counted else ""
            parts.append(f"at {weights}{judges} it is {words}")
        if "test_accuracy" in study.metrics:
            mean = _accuracy(result, group_name(study.focus, setting.name))
            own = [one for one in result["outcomes"] if one["metric"] == "test_accuracy"]
            words = _relations(own, study, setting.name, OUTCOME)
            parts.append(f"its test accuracy ({mean}) is {words}")
        where = f"{setting.name}: " if setting.name else ""
        clauses.append(where + "; ".join(parts))
    failed = count_failures(study, result["failures"])
    loss = f"; {failed} runs failed and are left out" if failed else ""
    count = len(study.seeds)
    seeds = "one seed, so no intervals" if count == 1 else f"{count} seeds"
    rule = f"{result['rule']['level']:.0%} level, margin {result['rule']['margin']:.0%}"
    return f"{study.focus} ({seeds}, {rule}, Holm-corrected){loss} – " + " | ".join(clauses) + "."


def _relations(
    verdicts: Sequence[dict[str, Any]], study: Study, setting: str, words: dict[str, str]
) -> str:
    """As in: flatter than A, B, sharper than C."""
    rivals = {group_name(arm.label, setting): arm.label for arm in study.arms}
    parts = []
    for verdict, word in words.items():
        names = [
            rivals[one["group"]] + _by(one)
            for one in verdicts
            if one["verdict"] == verdict and one["group"] in rivals
        ]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    return ", ".join(parts) or "without a rival to compare with"


def _by(one: dict[str, Any]) -> str:
    """The metrics that say so, where some may not."""
    metrics = one.get("by") if one["verdict"] in ("flatter", "sharper") else None
    return f" (by {' and '.join(map(_label, metrics))})" if metrics else ""


def _label(metric: str) -> str:
    return NAMES.get(metric, metric)


def _accuracy(result: Mapping[str, Any], name: str) -> str:
    for group in result["groups"]:
        if group["name"] == name and group["metrics"]["test_accuracy"]["mean"] is not None:
            return f"{100 * group['metrics']['test_accuracy']['mean']:.1f}%"
    return "not measured"
