"""Kinds of question, each answered in one sentence that is composed from the numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scipy import stats

from ssgd_analysis.studies.answer import Answer, p_text, seeds_text
from ssgd_analysis.studies.gains import (
    ACCURACY,
    LEVEL,
    Gain,
    Values,
    corrected,
    differences,
    gain_of,
    gains,
    listed,
    slopes,
)
from ssgd_analysis.studies.spec import Study
from ssgd_analysis.studies.strength import strength
from ssgd_analysis.studies.verdict import study_verdict

ROUNDING = 1e-9  # points: a mean gain below is none


def rivals(study: Study, result: Mapping[str, Any], values: Values) -> Answer:
    """Is the focus flatter than each rival at matched train loss, and more accurate?"""
    # one family, as in the sentence: every rival in every setting
    table = corrected(_all_gains(study, values))
    record = {"gains": [gain.record() for gain in table], "family": "all rivals and settings"}
    return Answer(study_verdict(study, result), record)


def trend(study: Study, result: Mapping[str, Any], values: Values) -> Answer:
    """Does the gain grow along the axis, as the batch size?"""
    focus = next(arm for arm in study.arms if arm.label == study.focus)
    places = {
        setting.name: math.log2(place)
        for setting in study.settings
        if (place := study.along(setting, focus))
    }
    found = {
        rival: gain_of(slopes(values, study.focus, rival, places), "", study.focus, rival)
        for rival in _rivals(study)
    }
    lines = dict(zip(found, corrected(list(found.values())), strict=True))
    main = found[study.against]
    way = "is not shown to change"
    if main.p is not None and main.mean is not None and main.p < LEVEL:
        way = "grows" if main.mean > 0 else "shrinks"
    axis = study.axis.replace("_", " ")
    table = _all_gains(study, values)
    last = max(places, key=lambda name: places[name]) if places else ""
    ends = [gain for gain in table if gain.setting == last]
    sentence = (
        f"The gain of {study.focus} over {study.against} in test accuracy {way} with the {axis}:"
        f" slope {_slope(main)} per doubling ({seeds_text(main.n)}, paired); the gains are"
        f" {_by_setting(table, study.against)} points (Holm over the settings); at {last} its test"
        f" accuracy is {listed(ends)}."
    )
    record = {
        "way": way,
        "axis": study.axis,
        "places": places,
        "gains": [gain.record() for gain in table],
        "slopes": [line.record() for line in lines.values()],
    }
    return Answer(sentence, record)


def each(study: Study, result: Mapping[str, Any], values: Values) -> Answer:
    """Does the gain survive in every setting?"""
    table = _all_gains(study, values)
    own = [gain for gain in table if gain.rival == study.against]
    up = [gain.setting for gain in own if gain.verdict == "higher"]
    down = [gain.setting for gain in own if gain.verdict == "lower"]
    survival = f"is shown in {len(up)} of {len(own)} settings"
    if up and len(up) < len(own):
        survival += f" ({', '.join(up)})"
    if down:
        survival += f" and reversed in {', '.join(down)}"
    beside = []
    for rival in _rivals(study):
        if rival != study.against:
            parts = []
            for verdict in ("higher", "lower", "not shown to differ", "not compared"):
                names = [
                    gain.setting
                    for gain in table
                    if gain.rival == rival and gain.verdict == verdict
                ]
                if names:
                    where = "everywhere" if len(names) == len(own) else f"in {', '.join(names)}"
                    lost = " (no run)" if verdict == "not compared" else ""
                    parts.append(f"{verdict}{lost} {where}")
            beside.append(f"against {rival} it is {', '.join(parts)}")
    also = f"; {'; '.join(beside)}" if beside else ""
    count = max((gain.n for gain in own), default=0)
    sentence = (
        f"The gain of {study.focus} over {study.against} in test accuracy {survival}:"
        f" {_by_setting(table, study.against)} points ({seeds_text(count)}, paired, Holm over the"
        f" settings){also}."
    )
    return Answer(sentence, {"gains": [gain.record() for gain in table], "shown": up})


def pairs(study: Study, result: Mapping[str, Any], values: Values) -> Answer:
    """Is any arm different from any other?"""
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
                    differences(values, setting.name, a, b), setting.name, a, b, family=len(couples)
                )
                for a, b in couples
            ]
        )
        record.append(
            {"setting": setting.name, "omnibus": omnibus, "pairs": [row.record() for row in rows]}
        )
        clauses.append((f"{setting.name}: " if setting.name else "") + _differing(rows, omnibus))
    count = seeds_text(len(study.seeds))
    sentence = (
        f"Test accuracy of {', '.join(arm.label for arm in study.arms)} ({count}, paired, Holm over"
        f" all pairs of a setting): {' | '.join(clauses)}."
    )
    return Answer(sentence, {"pairs": record})


def symmetry(study: Study, result: Mapping[str, Any], values: Values) -> Answer:
    """Does symmetry help at equal scale and equal cost, and what does it do to the variance?"""
    table = _all_gains(study, values)
    names = [setting.name for setting in study.settings]
    rivals = _rivals(study)
    pooled = corrected(
        [_pooled(values, study.focus, rival, names, len(rivals)) for rival in rivals]
    )
    main = next(gain for gain in pooled if gain.rival == study.against)
    way = {"higher": "helps", "lower": "hurts"}.get(main.verdict, "is not shown to help or hurt")
    own = [gain for gain in table if gain.rival == study.against]
    means = [gain.mean for gain in own if gain.mean is not None]
    mixed = len({mean > 0 for mean in means if abs(mean) > ROUNDING}) > 1
    where = f" (setting by setting {_by_setting(own, study.against)})" if mixed else ""
    rest = [gain for gain in pooled if gain is not main]
    others = "".join(f", over {gain.rival} {gain.words()}" for gain in rest)
    variance = result.get("variance", [])
    same = _same_trials(result.get("tuning"), study.focus, study.against)
    sentence = (
        f"At equal scale and equal cost symmetry {way}{' on average' if mixed else ''}: mean over"
        f" {len(names)} settings of the gain in test accuracy over {main.rival} {main.words()}"
        f"{where}{others} points"
        f" ({seeds_text(main.n)}, paired, Holm over the rivals){_at_equal_rates(same, main)}"
        f"{_variance(study, variance)}."
    )
    record = {
        "way": way,
        "same_trials": None if same is None else same.record(),
        "gains": [gain.record() for gain in table],
        "pooled": [gain.record() for gain in pooled],
        "variance": variance,
    }
    return Answer(sentence, record)


QUESTIONS: dict[str, Callable[[Study, Mapping[str, Any], Values], Answer]] = {
    "rivals": rivals,
    "trend": trend,
    "each": each,
    "strength": strength,
    "pairs": pairs,
    "symmetry": symmetry,
}


def _rivals(study: Study) -> list[str]:
    return [arm.label for arm in study.arms if arm.label != study.focus]


def _all_gains(study: Study, values: Values) -> list[Gain]:
    """Over every rival in every setting; Holm over the settings, rival by rival."""
    names = [setting.name for setting in study.settings]
    return [gain for rival in _rivals(study) for gain in gains(values, study.focus, rival, names)]


def _by_setting(table: Sequence[Gain], rival: str) -> str:
    return ", ".join(
        (f"{gain.setting}: " if gain.setting else "") + gain.words()
        for gain in table
        if gain.rival == rival
    )


def _slope(gain: Gain) -> str:
    """The main slope's numbers; its p stands alone, the others are corrected in the table."""
    if gain.mean is None:
        return "unknown (no common seed)"
    interval = f" [{gain.ci95[0]:+.3f}, {gain.ci95[1]:+.3f}]" if gain.ci95 else ""
    return f"{gain.mean:+.3f} points{interval}, {p_text(gain.p)},"


def _differing(rows: Sequence[Gain], omnibus: float | None) -> str:
    """What a setting's pairs show."""
    shown = [row for row in rows if row.verdict in ("higher", "lower")]
    known = [row for row in rows if row.mean is not None]
    friedman = "" if omnibus is None else f" (Friedman {p_text(omnibus)})"
    if not known:
        return "nothing to compare"
    if shown:
        said = [f"{row.arm} is {row.verdict} than {row.rival} ({row.words()})" for row in shown]
        return f"{', '.join(said)}; no other pair is shown to differ{friedman}"
    widest = max(known, key=lambda row: abs(row.mean or 0))
    return (
        f"no pair is shown to differ{friedman}; the widest, {widest.arm} minus {widest.rival}, is"
        f" {widest.words()} points"
    )


def _pooled(values: Values, arm: str, rival: str, settings: Sequence[str], family: int) -> Gain:
    """The gain averaged over settings, seed by seed; seeds that all settings have."""
    found = [differences(values, setting, arm, rival) for setting in settings]
    common = sorted(set.intersection(*map(set, found))) if found else []
    mean = {seed: sum(one[seed] for one in found) / len(found) for seed in common}
    return gain_of(mean, "all", arm, rival, family=family)


def _same_trials(tuning: Mapping[str, Any] | None, arm: str, rival: str) -> Gain | None:
    """The gain in validation accuracy at equal tuned values, trial by trial.

    Free of the luck of either arm's choice, which the final runs carry on. ``None``: the two arms
    did not try the same values.
    """
    tried: dict[str, dict[str, Any]] = {}
    for one in tuning["arms"] if tuning else ():
        tried.setdefault(one["arm"], {})[one["setting"]] = one["trials"]
    found: dict[int, list[float]] = {}
    for setting, mine in tried.get(arm, {}).items():
        theirs = tried.get(rival, {}).get(setting, [])
        if [trial["values"] for trial in mine] != [trial["values"] for trial in theirs]:
            return None
        for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if a["val_accuracy"] is not None and b["val_accuracy"] is not None:
                gained = 100 * (a["val_accuracy"] - b["val_accuracy"])
                found.setdefault(number, []).append(gained)
    if not found:
        return None
    return gain_of({n: sum(own) / len(own) for n, own in found.items()}, "all", arm, rival)


def _at_equal_rates(same: Gain | None, main: Gain) -> str:
    """Whether the gain is there without the choice of a trial, too."""
    if same is None or same.ci95 is None or same.mean is None:
        return ""
    text = (
        f"; at equal tuned values, over the {same.n} trials on validation data, the gain is"
        f" {same.mean:+.2f} [{same.ci95[0]:+.2f}, {same.ci95[1]:+.2f}]"
    )
    shown = main.verdict != "not shown to differ"
    if shown and not (same.ci95[0] > 0 if main.verdict == "higher" else same.ci95[1] < 0):
        text += ", so it may be the chosen values that differ and not what the symmetry does"
    return text


def _variance(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
    """The ratios of the gradient-noise variances, at the final weights."""
    own = [row for row in rows if row["weights"] == "final" and row["arm"] == study.focus]
    known = [row for row in own if row["ratio"] is not None]
    if not known:
        return ""
    said = [
        f"{row['ratio']:.2g}"
        + ("" if row["ratio_error"] is None else f" ± {row['ratio_error']:.1g}")
        + f" at c = {row['scale']:g}"
        for row in known
    ]
    return (
        f"; its gradient-noise variance at the final weights is, as a share of {study.against}'s,"
        f" {', '.join(said)}"
    )
