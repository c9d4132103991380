"""Does any arm differ from any other?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.studies.questions.answer import (
    ACCURACY,
    Answer,
    Gain,
    Question,
    Values,
    corrected,
    gain_of,
    gains_by_seed,
    p_words,
    seeds_words,
)
from ssgd_analysis.studies.spec import Study


class AllPairs(Question):
    """Does any arm differ from any other?"""

    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """See :meth:`Question.answer`."""
        from scipy import stats  # takes most of a second to import

        clauses, record = [], []
        for setting in study.settings:
            labels = [arm.label for arm in study.arms if (setting.name, arm.label) in values]
            own = {label: values[setting.name, label].get(ACCURACY, {}) for label in labels}
            common = sorted(set.intersection(*map(set, own.values()))) if own else []
            omnibus = None
            if len(labels) > 2 and len(common) > 1:
                columns = [[own[label][seed] for seed in common] for label in labels]
                p = float(stats.friedmanchisquare(*columns).pvalue)
                omnibus = p if math.isfinite(p) else 1.0  # all equal: no spread to rank
            couples = [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]
            rows = corrected(
                [
                    gain_of(
                        gains_by_seed(values, setting.name, a, b),
                        setting.name,
                        a,
                        b,
                        family=len(couples),
                    )
                    for a, b in couples
                ]
            )
            record.append(
                {
                    "setting": setting.name,
                    "omnibus": omnibus,
                    "pairs": [row.record() for row in rows],
                }
            )
            clauses.append(
                (f"{setting.name}: " if setting.name else "") + _differing(rows, omnibus)
            )
        names = ", ".join(arm.label for arm in study.arms)
        sentence = (
            f"Test accuracy of {names} ({seeds_words(len(study.seeds))}, paired, Holm-corrected"
            f" over all pairs of a setting): {' | '.join(clauses)}."
        )
        return Answer(sentence, {"pairs": record})


def _differing(rows: Sequence[Gain], omnibus: float | None) -> str:
    """What a setting's pairs show."""
    significant = [row for row in rows if row.verdict in ("higher", "lower")]
    compared = [row for row in rows if row.mean is not None]
    friedman = "" if omnibus is None else f" (Friedman {p_words(omnibus)})"
    if not compared:
        return "nothing to compare"
    if significant:
        sentences = [
            f"{row.arm} is {row.verdict} than {row.rival} ({row.words()})" for row in significant
        ]
        return f"{', '.join(sentences)}; no other pair is shown to differ{friedman}"
    widest = max(compared, key=lambda row: abs(row.mean or 0))
    return (
        f"no pair is shown to differ{friedman}; the largest difference, {widest.arm} minus"
        f" {widest.rival}, is {widest.words()} points"
    )
