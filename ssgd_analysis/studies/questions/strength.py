"""How accuracy, curvature and train loss go with a strength."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.comparison.statistics import interval
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.studies.questions.answer import (
    ACCURACY,
    Answer,
    Gain,
    Question,
    Values,
    corrected,
    focus_arms,
    gain_of,
    gains_by_seed,
    refuse_axis,
    seeds_words,
)
from ssgd_analysis.studies.spec import Study

FOLLOWED = (ACCURACY, "lambda_max", "train_loss")


class Strength(Question):
    """Where along the axis is the best, is it inside, and what happens to curvature and loss?

    The arms of the focus's method are the points of the axis; the others are references.
    """

    def check(self, study: Study) -> None:
        """See :meth:`Question.check`: in every setting the arms lie along the axis."""
        arms = focus_arms(study)
        lines = [[study.along(setting, arm) for arm in arms] for setting in study.settings]
        refuse_axis(study, lines, log=False)

    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """See :meth:`Question.answer`."""
        arms = focus_arms(study)
        curves, tests, clauses = [], [], []
        for setting in study.settings:
            line = {
                arm.label: position
                for arm in arms
                if (position := study.along(setting, arm)) is not None
                and values.get((setting.name, arm.label), {}).get(ACCURACY)
            }
            order = sorted(line, key=lambda label: line[label])
            if not order:
                clauses.append(f"{setting.name}: all runs failed")
                continue
            rest = [arm.label for arm in study.arms if arm.label not in line]
            rows = [_row(values, setting.name, label, line.get(label)) for label in [*order, *rest]]
            weakest = order[0]
            family = [
                gain_of(
                    gains_by_seed(values, setting.name, label, weakest),
                    setting.name,
                    label,
                    weakest,
                    family=len(order) - 1,
                )
                for label in order[1:]
            ]
            against = corrected(family)
            curves += rows
            tests += against
            name = f"{setting.name}: " if setting.name else ""
            clauses.append(
                name + _clause(study.axis, rows[: len(order)], rows[len(order) :], against)
            )
        sentence = f"{' | '.join(clauses)} ({seeds_words(len(study.seeds))}, paired, Holm)."
        record = {
            "axis": study.axis,
            "strength": curves,
            "gains": [test.record() for test in tests],
        }
        return Answer(sentence[0].upper() + sentence[1:], record)


def _row(values: Values, setting: str, label: str, position: float | None) -> dict[str, Any]:
    """One arm's means and intervals."""
    row: dict[str, Any] = {"setting": setting, "arm": label, "place": position}
    for metric in FOLLOWED:
        own = list(values.get((setting, label), {}).get(metric, {}).values())
        shown = interval(own) if own else None
        row[metric] = None if shown is None else {"mean": shown.mean, "ci95": shown.ci95}
    return row


def _clause(
    axis: str,
    rows: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    against: Sequence[Gain],
) -> str:
    """One setting's sentence."""
    best = max(rows, key=lambda row: row[ACCURACY]["mean"])
    first, last = rows[0], rows[-1]
    inside = "inside the range" if best not in (first, last) else "at the end of the range"
    up = [gain.arm for gain in against if gain.verdict == "higher"]
    down = [gain.arm for gain in against if gain.verdict == "lower"]
    shown = [f"higher than at {first['place']:g} for {', '.join(up)}"] if up else []
    shown += [f"lower for {', '.join(down)}"] if down else []
    shown = shown or [f"nowhere shown to differ from {first['place']:g}"]
    text = (
        f"test accuracy is highest at {axis.replace('_', ' ')} {best['place']:g}"
        f" ({_accuracy_text(best)}), {inside} {first['place']:g} to {last['place']:g}, and"
        f" {', '.join(shown)}"
    )
    for row in references:
        if row[ACCURACY]:
            text += f"; {row['arm']} has {_accuracy_text(row)}"
    for metric in FOLLOWED[1:]:
        if all(row[metric] for row in (first, best, last)):
            ends = " → ".join(f"{row[metric]['mean']:.3g}" for row in _distinct(first, best, last))
            text += f"; {NAMES[metric]} goes {ends}"
    return text


def _distinct(*rows: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for i, row in enumerate(rows) if row not in rows[:i]]


def _accuracy_text(row: Mapping[str, Any]) -> str:
    return f"{100 * row[ACCURACY]['mean']:.2f}%"
