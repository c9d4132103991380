"""Sections of a study's report: the numbers behind the answer, cost, tuning, sessions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.records import number
from ssgd_analysis.report import Section
from ssgd_analysis.report.tables import p_cell, relative_text
from ssgd_analysis.studies.board import duration
from ssgd_analysis.studies.spec import Study

WIDE = ("95% interval", "p", "p (Holm)", "seeds", "test")  # columns


def answer_sections(result: Mapping[str, Any], pictures: Mapping[str, Path]) -> list[Section]:
    """The numbers behind the answer."""
    answer, sections = result["answer"], []
    if answer.get("slopes"):
        sections.append(
            Section(
                f"Slope of the gain per doubling of the {answer['axis'].replace('_', ' ')}",
                "Least squares over the settings, seed by seed; p is that of the mean slope over"
                " seeds, Holm-corrected over the rivals. Learning rates and strengths are those"
                " that tuning chose; the intervals do not include the randomness of that choice.",
                *_gain_rows(answer["slopes"], "points a doubling"),
            )
        )
    if answer.get("pooled"):
        text = "Mean over the settings, seed by seed, Holm-corrected over the rivals."
        sections.append(Section("Gain over all settings", text, *_gain_rows(answer["pooled"])))
    if answer.get("gains") or answer.get("strength"):
        shown = [pictures[name] for name in ("gains", "strength") if name in pictures]
        family = answer.get("family", "the settings, rival by rival")
        text = (
            "Test accuracy in points, paired by seed, 95% intervals; p is Holm-corrected over"
            f" {family}."
        )
        if answer.get("strength"):
            text = "Each strength against the weakest, paired by seed, Holm-corrected over all."
        sections.append(
            Section("Gains", text, *_gain_rows(answer["gains"]), pictures=shown, wide=WIDE)
        )
    for one in answer.get("pairs", ()):
        name = f"Pairs, {one['setting']}" if one["setting"] else "Pairs"
        omnibus = f"Friedman's test over all arms: p = {p_cell(one['omnibus'])}. "
        text = omnibus + "Test accuracy in points, paired by seed, Holm-corrected over all pairs."
        sections.append(Section(name, text, *_gain_rows(one["pairs"]), wide=WIDE))
    if result.get("variance"):
        sections.append(_variance(result["variance"], pictures))
    return sections


def _gain_rows(
    gains: Sequence[Mapping[str, Any]], unit: str = "points"
) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            gain["setting"] or "–",
            gain["arm"],
            gain["rival"],
            "–" if gain["mean"] is None else f"{gain['mean']:+.3f}",
            "[{:+.3f}, {:+.3f}]".format(*gain["ci95"]) if gain["ci95"] else "–",
            p_cell(gain["p"]),
            p_cell(gain["p_holm"]),
            str(gain["n"]),
            gain["verdict"],
            gain["test"].split(",")[0] or "–",  # the seeds have a column
        ]
        for gain in gains
    ]
    header = [
        "setting", "arm", "minus", unit, "95% interval", "p", "p (Holm)", "seeds", "verdict",
        "test",
    ]  # fmt: skip
    return header, rows


def _variance(rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path]) -> Section:
    cells = [
        [
            row["weights"],
            f"{row['scale']:g}",
            row["arm"],
            number(row["variance"]),
            number(row["variance"] * row["passes"]),
            "–"
            if row["ratio"] is None
            else f"{row['ratio']:.3g}"
            + ("" if row["ratio_error"] is None else f" ± {row['ratio_error']:.1g}"),
            str(row["n"]),
        ]
        for row in rows
    ]
    return Section(
        "Variance of the gradient over the noise",
        "Variance of one step's gradient on one minibatch, summed over the parameters. It is"
        " measured at the same weights for all arms: those of the focus's runs in the first"
        " setting. Multiplied by the passes of a step it is the variance at equal cost. The ratio"
        " is the mean over these runs, ± its standard error.",
        ["weights", "noise scale", "arm", "variance", "variance × passes", "ratio", "runs"],
        cells,
        [pictures["variance"]] if "variance" in pictures else [],
    )


def spending_section(study: Study, result: Mapping[str, Any]) -> Section:
    """The passes of every arm, and their largest deviation."""
    rows = result["spending"]
    most = max((abs(row["deviation"]) for row in rows), default=0.0)
    kind = (
        "Every arm trains for as many epochs as its budget pays for"
        if study.budget is not None or any(s.budget is not None for s in study.settings)
        else "No budget is set, so every arm trains for the same epochs, whatever they cost"
    )
    cells = [
        [
            row["setting"] or "–",
            row["arm"],
            f"{row['passes']:,.0f}",
            relative_text(row["deviation"]),
        ]
        for row in rows
    ]
    text = (
        f"Forward-backward passes of one run, in examples. {kind}; the largest deviation from the"
        f" median arm of a setting is {most:.1%}."
    )
    return Section("Cost", text, ["setting", "arm", "passes (examples)", "deviation"], cells)


def tuning_sections(result: Mapping[str, Any], pictures: Mapping[str, Path]) -> list[Section]:
    """How learning rates and strengths were chosen."""
    record = result["tuning"]
    if not record:
        text = "Nothing was tuned in this study: its file gives all values."
        return [Section("Tuning", text)]
    edges = [
        f"{one['arm']}{', ' + one['setting'] if one['setting'] else ''}: {name}"
        for one in record["arms"]
        for name, edge in one["places"].items()
        if edge != "inside"
    ]
    count, seeds = record["trials"], len(record["seeds"])
    text = (
        f"Every arm had {count} trials of {seeds} seed{'s' * (seeds > 1)} each in every setting:"
        f" scrambled {record['sampler'].capitalize()} points (seed {record['sampler_seed']}) over"
        f" its ranges, trained with {record['share']:.0%} of the budget and {record['val']:.0%} of"
        f" the training examples held out. The best trial was chosen by {record['chosen_by']}; test"
        " examples were not used. The final runs use all training examples and other seeds."
        f" Number of tuned quantities: {_counts(record['arms'])}; equal numbers of trials favour"
        " arms with fewer. The intervals and p-values of this report do not include the randomness"
        " of the choice. In the picture, trials more than 20 points below the best are drawn at the"
        " lower edge. tuning.csv and tuning.json hold all trials. Choices within a tenth of their"
        f" range's edge: {'; '.join(edges) if edges else 'none'}."
    )
    rows = []
    for one in record["arms"]:
        best = None if one["chosen_trial"] is None else one["trials"][one["chosen_trial"]]
        failed = sum(trial["val_accuracy"] is None for trial in one["trials"])
        rows.append(
            [
                one["setting"] or "–",
                one["arm"],
                "; ".join(
                    f"{name} = {value:g} in [{one['ranges'][name]['low']:g},"
                    f" {one['ranges'][name]['high']:g}]"
                    + ("" if one["places"][name] == "inside" else f", {one['places'][name]}")
                    for name, value in (one["chosen"] or {}).items()
                )
                or "–",
                "–" if best is None else f"{100 * best['val_accuracy']:.2f}%",
                "–" if best is None else number(best["val_loss"]),
                str(failed),
            ]
        )
    header = ["setting", "arm", "chosen", "validation accuracy", "validation loss", "trials failed"]
    shown = [pictures["tuning"]] if "tuning" in pictures else []
    return [Section("Tuning", text, header, rows, shown)]


def _counts(arms: Sequence[Mapping[str, Any]]) -> str:
    """How many quantities were tuned for which arms: ``1 (SGD), 2 (SAM, S-SGD)``."""
    by_count: dict[int, dict[str, None]] = {}
    for one in arms:
        by_count.setdefault(len(one["ranges"]), {})[one["arm"]] = None
    return ", ".join(f"{count} ({', '.join(by_count[count])})" for count in sorted(by_count))


def sessions_section(study: Study, sessions: Sequence[Mapping[str, Any]]) -> Section:
    """Command, seeds, machine, versions, wall time."""
    rows = []
    for session in sessions:
        edge = session["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in edge["versions"].items())
        rows.append(
            [
                session["command"] or "–",
                str(session["trained"]),
                duration(session["seconds"]),
                f"{session['jobs']} processes of one thread on {edge['cores']} cores",
                edge["cpu"],
                f"Python {edge['python']}, {versions}",
            ]
        )
    text = (
        f"Seeds {', '.join(map(str, study.seeds))} for all arms, which are compared seed by seed."
        " The wall time of a command includes tuning, training, measuring and drawing."
    )
    header = ["command", "final runs trained", "wall time", "processes", "processor", "versions"]
    return Section("How it was run", text, header, rows)
