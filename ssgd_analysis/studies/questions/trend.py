"""Does the gain grow along an axis, such as the batch size?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssgd_analysis.studies.questions.answer import (
    ACCURACY,
    LEVEL,
    Answer,
    Gain,
    Question,
    Values,
    all_gains,
    by_setting,
    corrected,
    gain_of,
    gains_by_seed,
    p_words,
    refuse_axis,
    rivals_of,
    seeds_words,
)
from ssgd_analysis.studies.spec import Study


class Trend(Question):
    """Does the gain grow along an axis, such as the batch size?"""

    def check(self, study: Study) -> None:
        """See :meth:`Question.check`: the settings lie along the axis, by its logarithm."""
        focus = next(arm for arm in study.arms if arm.label == study.focus)
        line = [study.along(setting, focus) for setting in study.settings]
        refuse_axis(study, [line], log=True)

    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """See :meth:`Question.answer`."""
        focus = next(arm for arm in study.arms if arm.label == study.focus)
        positions = {
            setting.name: math.log2(position)
            for setting in study.settings
            if (position := study.along(setting, focus))
        }
        found = {
            rival: gain_of(
                gain_slopes(values, study.focus, rival, positions), "", study.focus, rival
            )
            for rival in rivals_of(study)
        }
        lines = dict(zip(found, corrected(list(found.values())), strict=True))
        main = found[study.against]
        direction = "is not shown to change"
        if main.p is not None and main.mean is not None and main.p < LEVEL:
            direction = "grows" if main.mean > 0 else "shrinks"
        axis = study.axis.replace("_", " ")
        table = all_gains(study, values)
        last = max(positions, key=lambda name: positions[name]) if positions else ""
        ends = [gain for gain in table if gain.setting == last]
        gain = f"The gain of {study.focus} over {study.against} in test accuracy"
        sentence = (
            f"{gain} {direction} with the {axis}: {_slope(main)} ({seeds_words(main.n)}, paired)."
            f" The gains are {by_setting(table, study.against)} points (Holm-corrected over the"
            " settings)."
            f" At {last} the test accuracy of {study.focus} is {listed(ends)}."
        )
        record = {
            "way": direction,
            "axis": study.axis,
            "places": positions,
            "gains": [gain.record() for gain in table],
            "slopes": [line.record() for line in lines.values()],
        }
        return Answer(sentence, record)


def gain_slopes(
    values: Values, arm: str, rival: str, positions: Mapping[str, float], metric: str = ACCURACY
) -> dict[int, float]:
    """Slope of the gain along an axis, seed by seed: least squares over the settings.

    Args:
        values: of all arms.
        arm: what gains.
        rival: over what.
        positions: setting → its position on the axis.
        metric: of the gain.

    Returns:
        Seed → slope, for the seeds that all settings have.
    """
    found = {s: gains_by_seed(values, s, arm, rival, metric) for s in positions}
    common = set.intersection(*map(set, found.values())) if found else set()
    x = np.array(list(positions.values()))
    if len(x) < 2 or np.ptp(x) == 0:
        return {}
    return {
        seed: float(np.polyfit(x, [found[setting][seed] for setting in positions], 1)[0])
        for seed in sorted(common)
    }


def listed(rows: Sequence[Gain], name: str = "rival") -> str:
    """As in: higher than that of A, B; not shown to differ from that of C."""
    joined = {
        "higher": "higher than that of {}",
        "lower": "lower than that of {}",
        "not shown to differ": "not shown to differ from that of {}",
        "not measured": "not measured against {} (no run)",
    }
    parts = []
    for verdict, words in joined.items():
        names = [getattr(row, name) for row in rows if row.verdict == verdict]
        if names:
            parts.append(words.format(", ".join(names)))
    return "; ".join(parts)


def _slope(gain: Gain) -> str:
    """The main slope's numbers; its p is not corrected, those in the table are."""
    if gain.mean is None:
        return "its slope is unknown, as no seed is common"
    interval = f" [{gain.ci95[0]:+.3f}, {gain.ci95[1]:+.3f}]" if gain.ci95 else ""
    return f"its slope is {gain.mean:+.3f} points{interval} per doubling, {p_words(gain.p)}"
