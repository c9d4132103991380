"""The report of a comparison: its page, tables and pictures."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ssgd_analysis.files import write_json
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.pictures.comparison import comparison_figures
from ssgd_analysis.pictures.correlations import correlation_csv, correlation_tables
from ssgd_analysis.pictures.paper import paper_of
from ssgd_analysis.plots import interval_figure, save_figure
from ssgd_analysis.plots.save import png_bytes
from ssgd_analysis.plots.style import COLUMN, on_paper
from ssgd_analysis.report.page import Section, write_page, write_table
from ssgd_analysis.report.tables import (
    answer_notes,
    answer_rows,
    columns_note,
    group_rows,
    outcome_rows,
    overall_rows,
    test_csv,
    test_rows,
)
from ssgd_analysis.settings.pictures import PictureSettings

WIDE = ("counts", "relative", "95% interval", "p (Holm)")
MORE = ("difference", "bootstrap", "p", "gap of train losses")


def interval_panels(
    result: dict[str, Any], values: dict[str, dict[str, list[float]]]
) -> dict[str, Any]:
    """The groups' metrics as :func:`interval_figure` wants them.

    Args:
        result: of ``compare``.
        values: group → metric → each seed's value.
    """
    panels: dict[str, Any] = {}
    for group in result["groups"]:
        for metric, found in group["metrics"].items():
            if found["mean"] is not None:
                row = (found["mean"], found["ci95"], values[group["name"]][metric])
                panels.setdefault(NAMES.get(metric, metric), {})[group["name"]] = row
    return panels


def write_comparison(
    out: Path,
    result: dict[str, Any],
    values: dict[str, dict[str, list[float]]],
    pictures: PictureSettings | None = None,
) -> list[Path]:
    """Write ``report.html``, ``groups.csv``, ``tests.csv``, ``compare.json`` and the pictures.

    With correlations also ``correlations.csv``. ``compare.json`` also holds the values of every
    seed, so the pictures can be drawn again from it.

    Args:
        out: an existing folder.
        result: of ``compare``.
        values: group → metric → each seed's value.
        pictures: how they look.

    Returns:
        The files written, the page first.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    paper = paper_of(pictures)
    with on_paper(paper):
        figures = _figures(result, values)
    with on_paper(replace(paper, width=COLUMN)):
        narrow = {name: png_bytes(figure) for name, figure in _figures(result, values).items()}
    files = {name: save_figure(figure, out / name) for name, figure in figures.items()}
    groups, tests = group_rows(result), test_rows(result["tests"])
    outcomes = outcome_rows(result["outcomes"])
    plain = [
        [group["name"], metric, found["mean"], *(found["ci95"] or (None, None)), found["n"]]
        for group in result["groups"]
        for metric, found in group["metrics"].items()
    ]
    tables = [
        write_table(out / "groups.csv", ["group", "metric", "mean", "low", "high", "n"], plain),
        write_table(out / "tests.csv", *test_csv(result["tests"])),
    ]
    shown = {
        name: {"pictures": paths[:1], "narrow": [narrow[name]]} for name, paths in files.items()
    }
    correlations = _correlations(result.get("correlations"), shown)
    if correlations:
        table = correlation_csv(result["correlations"])
        tables.append(write_table(out / "correlations.csv", *table))
    write_json(out / "compare.json", {**result, "values": values})
    page = write_page(
        out / "report.html",
        "Comparison of training methods",
        result["answer"],
        [
            Section("Answer", " ".join(answer_notes(result)), *answer_rows(result["table"])),
            *_picture_sections(shown, unequal_groups(result)),
            Section("In words", result["verdict"]),
            Section("Overall", result["rule"]["text"], *overall_rows(result["overall"])),
            Section("Tests of flatness", columns_note(result), *tests, wide=WIDE, more=MORE),
            Section(
                "Accuracy and loss",
                "At the final weights, Holm-corrected.",
                *outcomes,
                wide=("95% interval", "p (Holm)"),
            ),
            Section("Groups", _groups_text(result), *groups),
            *correlations,
        ],
    )
    return [page, *tables, *(path for paths in files.values() for path in paths)]


def _figures(
    result: dict[str, Any], values: dict[str, dict[str, list[float]]]
) -> dict[str, Figure]:
    panels = interval_panels(result, values)
    metrics = {"intervals": interval_figure({"": panels})} if panels else {}
    return metrics | comparison_figures(result, values, NAMES)


def unequal_groups(result: Mapping[str, Any]) -> str:
    """The caveat of captions: pairs whose train losses differ by more than the tolerance."""
    gaps = {
        f"{test['group']} and {test['baseline']} ({test['loss_gap']:.0%})": None
        for test in result["tests"]
        if (test.get("loss_gap") or 0) > result["loss_tolerance"]
    }
    if not gaps:
        return ""
    named = ", ".join(gaps) if len(gaps) <= 4 else f"{len(gaps)} pairs"
    return f" Train losses are unequal: {named}; less training alone can look flatter."


def _groups_text(result: dict[str, Any]) -> str:
    """What the table of groups shows, and what is assumed or not known of them."""
    parts = ["Mean over seeds ± half of the 95% interval.", *result.get("remarks", ())]
    return " ".join(parts)


PICTURED = {
    "verdicts": ("Verdicts at a glance", "Relative differences, coloured by verdict."),
    "differences": (
        "Differences",
        "Relative to the baseline's mean, with 95% intervals. Differences within the shaded margin"
        " are too small to matter. Hollow marks are metrics that the method was trained on.",
    ),
    "intervals": ("Metrics", "Each tick is a seed; bars are 95% intervals."),
    "scatter": ("Metric against metric", "Each mark is a run."),
}


Shown = Mapping[str, Mapping[str, Any]]


def _picture_sections(shown: Shown, caveat: str) -> list[Section]:
    return [
        Section(title, text + caveat, **shown[name], is_open=name == "verdicts")
        for name, (title, text) in PICTURED.items()
        if name in shown
    ]


def _correlations(found: dict[str, Any] | None, shown: Shown) -> list[Section]:
    if found is None:
        return []
    text = (
        "Kendall's τ with its 95% interval, and the granulated coefficient Ψ, which holds all"
        f" settings but one fixed; {found['convention']}. The intervals treat settings and seeds as"
        " the sampling units and are not corrected for multiple comparisons. Correlation does not"
        " show a cause."
    )
    return [
        Section("Does flatness go with accuracy?", text, **shown.get("correlations", {})),
        *[Section(title, "", *table) for title, table in correlation_tables(found).items()],
    ]
