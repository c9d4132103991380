"""The report of a comparison: its page, tables and pictures."""

from pathlib import Path
from typing import Any

from ssgd_analysis.files import write_json
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.pictures.comparison import comparison_pictures
from ssgd_analysis.pictures.correlations import correlation_csv, correlation_tables
from ssgd_analysis.plots import interval_figure, save_figure
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
    out: Path, result: dict[str, Any], values: dict[str, dict[str, list[float]]]
) -> list[Path]:
    """Write ``report.html``, ``groups.csv``, ``tests.csv``, ``compare.json`` and the pictures.

    With correlations also ``correlations.csv``. ``compare.json`` also holds the values of every
    seed, so the pictures can be drawn again from it.

    Args:
        out: an existing folder.
        result: of ``compare``.
        values: group → metric → each seed's value.

    Returns:
        The files written, the page first.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    panels = interval_panels(result, values)
    pictures = save_figure(interval_figure({"": panels}), out / "intervals") if panels else []
    pictures_of = comparison_pictures(out, result, values, NAMES)
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
    correlations = _correlations(result.get("correlations"), pictures_of)
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
            Section("In words", result["verdict"]),
            Section("Groups", "Mean over seeds ± half of the 95% interval.", *groups),
            Section(
                "Metrics", "Each tick is a seed; bars are 95% intervals.", pictures=pictures[:1]
            ),
            *_picture_sections(pictures_of),
            Section("Overall", result["rule"]["text"], *overall_rows(result["overall"])),
            Section("Tests of flatness", columns_note(result), *tests),
            Section("Accuracy and loss", "At the final weights, Holm-corrected.", *outcomes),
            *correlations,
        ],
    )
    return [page, *tables, *pictures, *[path for paths in pictures_of.values() for path in paths]]


PICTURED = {
    "differences": (
        "Differences",
        "Relative to the baseline's mean, with 95% intervals. Differences within the shaded margin"
        " are too small to matter. Hollow marks are metrics that the method was trained on.",
    ),
    "verdicts": ("Verdicts at a glance", "The same differences, coloured by verdict."),
    "scatter": ("Metric against metric", "Each mark is a run."),
}


def _picture_sections(pictures_of: dict[str, list[Path]]) -> list[Section]:
    return [
        Section(title, text, pictures=pictures_of[name][:1])
        for name, (title, text) in PICTURED.items()
        if name in pictures_of
    ]


def _correlations(
    found: dict[str, Any] | None, pictures_of: dict[str, list[Path]]
) -> list[Section]:
    if found is None:
        return []
    text = (
        "Kendall's τ with its 95% interval, and the granulated coefficient Ψ, which holds all"
        f" settings but one fixed; {found['convention']}. The intervals treat settings and seeds as"
        " the sampling units and are not corrected for multiple comparisons. Correlation does not"
        " show a cause."
    )
    pictures = pictures_of.get("correlations", [])[:1]
    return [
        Section("Does flatness go with accuracy?", text, pictures=pictures),
        *[Section(title, "", *table) for title, table in correlation_tables(found).items()],
    ]
