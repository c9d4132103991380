"""Pictures and page of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.comparison import Group
from ssgd_analysis.pictures.study import answer_figures, tuning_figures
from ssgd_analysis.plots import (
    Line,
    Mark,
    Plane,
    interval_figure,
    loss_bands,
    loss_contours,
    save_figure,
    training_curves,
)
from ssgd_analysis.plots.style import OwnAxes
from ssgd_analysis.report import Section, write_page, write_table
from ssgd_analysis.report.comparison import MORE, WIDE, interval_panels
from ssgd_analysis.report.tables import (
    group_rows,
    outcome_rows,
    overall_rows,
    test_csv,
    test_rows,
)
from ssgd_analysis.studies.markdown import write_markdown
from ssgd_analysis.studies.sections import (
    answer_sections,
    sessions_section,
    spending_section,
    tuning_sections,
)
from ssgd_analysis.studies.spec import Study

INTERVAL_METRICS = ("test_accuracy", "lambda_max", "expected", "adaptive_worst")


def write_study(
    folder: Path,
    study: Study,
    result: Mapping[str, Any],
    groups: Sequence[Group],
    landscapes: Mapping[str, Mapping[str, np.ndarray]],
    sessions: Sequence[dict[str, Any]],
) -> list[Path]:
    """Draw all pictures, and write the tables and the page.

    Args:
        folder: an existing one.
        study: what was run.
        result: verdict, groups and tests.
        groups: the runs.
        landscapes: "group/1" and "group/2" → arrays of lines and of the plane.
        sessions: how it was run.

    Returns:
        The files: ``report.html``, ``report.md``, the tables, the pictures.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    by_setting = {
        setting.name: members
        for setting in study.settings
        if (members := [g for g in groups if g.condition == setting.name])
    }
    figures = {
        "training": training_curves({s: _curves(members) for s, members in by_setting.items()}),
        "intervals": study_intervals(result),
        **answer_figures(result),
        **(tuning_figures(result["tuning"]) if result["tuning"] else {}),
        **(_landscape_figures(by_setting, landscapes) if landscapes else {}),
    }
    pictures = {name: save_figure(figure, folder / name) for name, figure in figures.items()}
    table = group_rows(result)
    tables = [
        write_table(folder / "table.csv", *table),
        write_table(folder / "tests.csv", *test_csv(result["tests"])),
        write_table(folder / "matched_tests.csv", *test_csv(result["matched_tests"])),
    ]
    title, verdict = f"Study: {study.name}", result["verdict"]
    first = {name: paths[0] for name, paths in pictures.items()}
    sections = _sections(study, result, table, first, sessions)
    page = write_page(folder / "report.html", title, verdict, sections)
    text = write_markdown(folder / "report.md", title, verdict, sections)
    return [page, text, *tables, *(path for paths in pictures.values() for path in paths)]


def _landscape_figures(
    by_setting: Mapping[str, Sequence[Group]],
    landscapes: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Figure]:
    """The loss along random lines, all settings together, and over one plane in each setting."""
    lines = {
        setting: {
            g.config.label: _rise(found["alpha"], np.atleast_2d(found["loss"]))
            for g in members
            if (found := landscapes[f"{g.name}/1"])
        }
        for setting, members in by_setting.items()
    }
    figures = {
        "lines": loss_bands(
            lines, xlabel="α (fraction of filter norm)", ylabel="rise of the train loss"
        )
    }
    for index, (setting, members) in enumerate(by_setting.items(), start=1):
        planes = {
            g.config.label: Plane(
                found["alpha"], found["beta"], found["loss"], [Mark("", 0.0, 0.0)]
            )
            for g in members
            if (found := landscapes[f"{g.name}/2"])
        }
        name = f"contours-{index}" if len(by_setting) > 1 else "contours"
        figures[name] = loss_contours(
            planes, label=f"train loss, {setting}" if setting else "train loss"
        )
    return figures


def _sections(
    study: Study,
    result: Mapping[str, Any],
    table: Any,
    pictures: dict[str, Path],
    sessions: Sequence[dict[str, Any]],
) -> list[Section]:
    sections = [
        *answer_sections(result, pictures),
        Section("Results", "Mean over seeds ± half of the 95% interval.", *table),
        Section(
            "Accuracy and sharpness",
            "Each tick is a seed; bars are 95% intervals.",
            pictures=[pictures["intervals"]],
        ),
        Section(
            "Training", "Mean over seeds; the band is their range.", pictures=[pictures["training"]]
        ),
        *_flatness(study, result),
        Section("Accuracy and loss", "At the final weights.", *outcome_rows(result["outcomes"])),
        spending_section(study, result),
        *tuning_sections(result, pictures),
        *_landscapes(pictures),
    ]
    if result["failures"]:
        rows = [[name, error] for name, error in result["failures"].items()]
        sections.append(Section("Failed runs", "", ["run", "why"], rows))
    return [*sections, sessions_section(study, sessions)]


def _flatness(study: Study, result: Mapping[str, Any]) -> list[Section]:
    """The tests of flatness, where a metric of it was measured."""
    if not result["tests"]:
        return []
    rows = test_rows(result["tests"])
    last = Section("Flatness at the final weights", "", *rows, wide=WIDE, more=MORE)
    if not study.matched:
        return [last]
    return [
        Section(
            f"Verdict at matched train loss, each arm against {study.focus}",
            result["rule"]["text"],
            *overall_rows(result["matched_overall"]),
            is_open=True,
        ),
        Section(
            f"Flatness at matched train loss, each arm against {study.focus}",
            "In each pair, the run that fits better is measured at the saved checkpoint whose train"
            " loss is nearest to the other's final train loss.",
            *test_rows(result["matched_tests"]),
            wide=WIDE,
            more=MORE,
        ),
        last,
    ]


def _landscapes(pictures: dict[str, Path]) -> list[Section]:
    contours = [path for name, path in pictures.items() if name.startswith("contours")]
    if not contours:
        return []
    return [
        Section(
            "Loss along filter-normalised random directions",
            "First seed; mean and 10–90% band over directions, which are the same for all arms.",
            pictures=[pictures["lines"]],
        ),
        Section(
            "Loss over one filter-normalised random plane",
            "First seed; all arms share the two directions and the colour scale. This picture"
            " illustrates and proves nothing.",
            pictures=contours,
        ),
    ]


def _rise(alpha: np.ndarray, losses: np.ndarray) -> Line:
    """Loss minus its mean at the checkpoint, so that lines start together."""
    return Line(alpha, losses - losses.mean(axis=0)[np.abs(alpha).argmin()])


def _curves(groups: Sequence[Group]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    curves = {}
    for group in groups:
        columns = [  # what is None becomes NaN
            np.array([run.recorded(key) for run in group.runs.values()], dtype=float)
            for key in ("gradients", "train_loss", "test_accuracy")
        ]
        curves[group.config.label] = (columns[0][0], columns[1], columns[2])
    return curves


def study_intervals(result: Mapping[str, Any], *, axes: OwnAxes = None) -> Figure:
    """Draw accuracy and sharpness of every arm and setting, from ``result.json`` alone.

    Args:
        result: of the study.
        axes: the user's own, one for each pictured metric of each setting.
    """
    panels: dict[str, Any] = {}
    for setting in result["settings"]:
        labels = {f"{arm}, {setting}" if setting else arm: arm for arm in result["arms"]}
        own = [group for group in result["groups"] if group["name"] in labels]
        metrics = list(result["groups"][0]["metrics"])
        pictured = [metric for metric in INTERVAL_METRICS if metric in metrics] or metrics[:3]
        shown = [
            {**g, "name": labels[g["name"]], "metrics": {m: g["metrics"][m] for m in pictured}}
            for g in own
        ]
        values = {labels[g["name"]]: result["values"][g["name"]] for g in own}
        panels[setting] = interval_panels({"groups": shown}, values)
    return interval_figure(panels, axes=axes)
