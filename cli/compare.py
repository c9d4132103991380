"""``ssgd-analyze compare``."""

from pathlib import Path
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    computing,
    example,
    json_option,
    settings_from,
    settings_options,
)

from ssgd_analysis.settings.comparison import (
    ComparisonSettings,
    MeasurementSettings,
    VerdictRule,
)
from ssgd_analysis.settings.pictures import PictureSettings


@click.command(
    epilog=example(
        "for m in sgd s-sgd; do for s in 0 1 2; do ssgd-analyze train --method $m --data "
        "digits --model mlp --epochs 5 --seed $s --out runs/compare/$m-$s --resume; done; "
        "done; ssgd-analyze compare runs/compare --metric lambda_max"
    )
)
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@settings_options(ComparisonSettings)
@settings_options(VerdictRule)
@settings_options(MeasurementSettings, without=("seed", "device"))
@settings_options(PictureSettings)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for report.html, tables and pictures."
)
@json_option
@computing
def command(paths: tuple[Path, ...], out: Path | None, as_json: bool, **options: Any) -> None:
    """Compare runs: groups by method and settings, seeds are repeats.

    PATHs are runs or folders of runs. Metrics that a run does not have yet are measured, and
    stored in its folder. The first line answers whether each group is flatter than its baseline,
    the table below it gives the effects, and the details follow.
    """
    from ssgd_analysis.comparison import DEFAULT_METRICS, compare
    from ssgd_analysis.files import make_folder
    from ssgd_analysis.report.tables import (
        answer_notes,
        answer_rows,
        comparison_notes,
        comparison_tables,
    )

    settings = settings_from(ComparisonSettings, options)
    if out is not None:
        make_folder(out)  # so that a wrong one is refused before anything is measured
    with console.Display() as progress:
        found = compare(
            paths,
            metrics=settings.metrics or DEFAULT_METRICS,
            baseline=settings.baseline,
            loss_tolerance=settings.loss_tolerance,
            match_loss=settings.match_loss,
            match_by=settings.match_by,
            correlate=settings.correlate,
            rule=settings_from(VerdictRule, options),
            settings=settings_from(MeasurementSettings, options),
            progress=progress,
        )
    written = (
        [] if out is None else found.save(out, pictures=settings_from(PictureSettings, options))
    )
    if as_json:
        console.answer_json(found.to_json())
        return
    document = found.document()
    console.answer(document["answer"])
    console.answer()
    if document["table"]:
        console.answer_table(*answer_rows(document["table"]))
        console.answer()
    for note in [*answer_notes(document), ""]:
        console.answer_text(note) if note else console.answer()
    for title, table in comparison_tables(document):
        console.answer_table(*table, title=title)
        console.answer()
    for note in comparison_notes(document):
        console.answer_text(note) if note else console.answer()
    for path in written:
        console.answer(str(path))
