"""Does symmetry help at equal scale and cost, and what does it do to the variance?"""

from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.studies.questions.answer import (
    Answer,
    Gain,
    Question,
    Values,
    all_gains,
    by_setting,
    corrected,
    gain_of,
    gains_by_seed,
    rivals_of,
    seeds_words,
)
from ssgd_analysis.studies.spec import Study

NO_GAIN = 1e-9  # points: a smaller mean gain is none


class Symmetry(Question):
    """Does symmetry help at equal scale and cost, and what does it do to the variance?"""

    def answer(self, study: Study, result: Mapping[str, Any], values: Values) -> Answer:
        """See :meth:`Question.answer`."""
        table = all_gains(study, values)
        names = [setting.name for setting in study.settings]
        rivals = rivals_of(study)
        pooled = corrected(
            [_pooled(values, study.focus, rival, names, len(rivals)) for rival in rivals]
        )
        main = next(gain for gain in pooled if gain.rival == study.against)
        effect = {"higher": "helps", "lower": "hurts"}.get(
            main.verdict, "is not shown to help or hurt"
        )
        mixed, where = _by_setting_if_mixed(table, study.against)
        others = "".join(f", and {g.words()}, over {g.rival}" for g in pooled if g is not main)
        same = _same_trials(result.get("tuning"), study.focus, study.against)
        variance = result.get("variance", [])
        sentence = (
            f"At equal scale and equal cost, symmetry {effect}{' on average' if mixed else ''}: the"
            f" gain in test accuracy, in points and averaged over {len(names)} settings, is"
            f" {main.words()}, over {main.rival}{where}{others} ({seeds_words(main.n)}, paired,"
            " Holm-corrected"
            f" over the rivals).{_at_equal_rates(same, main)}{_variance(study, variance)}"
        )
        record = {
            "way": effect,
            "same_trials": None if same is None else same.record(),
            "gains": [gain.record() for gain in table],
            "pooled": [gain.record() for gain in pooled],
            "variance": variance,
        }
        return Answer(sentence, record)


def _by_setting_if_mixed(table: Sequence[Gain], rival: str) -> tuple[bool, str]:
    """Whether the gains over a rival have both signs, and if so all of them in words."""
    own = [gain for gain in table if gain.rival == rival]
    means = [gain.mean for gain in own if gain.mean is not None]
    mixed = len({mean > 0 for mean in means if abs(mean) > NO_GAIN}) > 1
    return mixed, f" (setting by setting {by_setting(own, rival)})" if mixed else ""


def _pooled(values: Values, arm: str, rival: str, settings: Sequence[str], family: int) -> Gain:
    """The gain averaged over settings, seed by seed; seeds that all settings have."""
    found = [gains_by_seed(values, setting, arm, rival) for setting in settings]
    common = sorted(set.intersection(*map(set, found))) if found else []
    mean = {seed: sum(one[seed] for one in found) / len(found) for seed in common}
    return gain_of(mean, "all", arm, rival, family=family)


def _same_trials(tuning: Mapping[str, Any] | None, arm: str, rival: str) -> Gain | None:
    """The gain in validation accuracy at equal tuned values, trial by trial.

    It does not depend on which trial either arm chose, as the final runs do. ``None``: the two
    arms did not try the same values.
    """
    tried: dict[str, dict[str, Any]] = {}
    for one in tuning["arms"] if tuning else ():
        tried.setdefault(one["arm"], {})[one["setting"]] = one["trials"]
    found: dict[int, list[float]] = {}
    for setting, own in tried.get(arm, {}).items():
        other = tried.get(rival, {}).get(setting, [])
        if [trial["values"] for trial in own] != [trial["values"] for trial in other]:
            return None
        for number, (a, b) in enumerate(zip(own, other, strict=True)):
            if a["val_accuracy"] is not None and b["val_accuracy"] is not None:
                gained = 100 * (a["val_accuracy"] - b["val_accuracy"])
                found.setdefault(number, []).append(gained)
    if not found:
        return None
    return gain_of({n: sum(gained) / len(gained) for n, gained in found.items()}, "all", arm, rival)


def _at_equal_rates(same: Gain | None, main: Gain) -> str:
    """Whether the gain is also there without the choice of a trial."""
    if same is None or same.ci95 is None or same.mean is None:
        return ""
    text = (
        f" At equal tuned values, over the {same.n} trials on validation data, the gain is"
        f" {same.mean:+.2f} [{same.ci95[0]:+.2f}, {same.ci95[1]:+.2f}]"
    )
    shown = main.verdict != "not shown to differ"
    if shown and not (same.ci95[0] > 0 if main.verdict == "higher" else same.ci95[1] < 0):
        text += ", so it may come from the values that were chosen and not from the symmetry"
    return f"{text}."


def _variance(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
    """The ratios of the gradient-noise variances, at the final weights."""
    own = [row for row in rows if row["weights"] == "final" and row["arm"] == study.focus]
    measured = [row for row in own if row["ratio"] is not None]
    if not measured:
        return ""
    parts = [
        f"{row['ratio']:.2g}"
        + ("" if row["ratio_error"] is None else f" ± {row['ratio_error']:.1g}")
        + f" at c = {row['scale']:g}"
        for row in measured
    ]
    return (
        f" At the final weights the variance of its gradient noise, divided by that of"
        f" {study.against}, is {', '.join(parts)}."
    )
