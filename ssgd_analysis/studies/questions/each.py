"""Is the gain there in every setting?"""

from collections.abc import Mapping
from typing import Any

from ssgd_analysis.studies.questions.answer import (
    Answer,
    Question,
    Values,
    all_gains,
    by_setting,
    rivals_of,
    seeds_words,
)
from ssgd_analysis.studies.spec import Study


class Each(Question):
    """Is the gain there in every setting?"""

    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """See :meth:`Question.answer`."""
        table = all_gains(study, values)
        own = [gain for gain in table if gain.rival == study.against]
        up = [gain.setting for gain in own if gain.verdict == "higher"]
        down = [gain.setting for gain in own if gain.verdict == "lower"]
        survival = f"is shown in {len(up)} of {len(own)} settings"
        if up and len(up) < len(own):
            survival += f" ({', '.join(up)})"
        if down:
            survival += f" and reversed in {', '.join(down)}"
        others = []
        for rival in rivals_of(study):
            if rival != study.against:
                parts = []
                for verdict in ("higher", "lower", "not shown to differ", "not measured"):
                    names = [
                        gain.setting
                        for gain in table
                        if gain.rival == rival and gain.verdict == verdict
                    ]
                    if names:
                        scope = "everywhere" if len(names) == len(own) else f"in {', '.join(names)}"
                        lost = " (no run)" if verdict == "not measured" else ""
                        parts.append(f"{verdict}{lost} {scope}")
                others.append(f"against {rival} its accuracy is {', '.join(parts)}")
        also = f"; {'; '.join(others)}" if others else ""
        count = max((gain.n for gain in own), default=0)
        sentence = (
            f"The gain of {study.focus} over {study.against} in test accuracy {survival}:"
            f" {by_setting(table, study.against)} points ({seeds_words(count)}, paired,"
            f" Holm-corrected over the settings){also}."
        )
        return Answer(sentence, {"gains": [gain.record() for gain in table], "shown": up})
