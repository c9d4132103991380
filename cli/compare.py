"""``ssgd-analyze compare``."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    belonging_options,
    computing,
    example,
    json_option,
    settings_from,
    settings_options,
)
from ssgd_analysis.cli.options import given as given_options

from ssgd_analysis.settings.comparison import (
    ComparisonSettings,
    MeasurementSettings,
    VerdictRule,
)
from ssgd_analysis.settings.pictures import PictureSettings

if TYPE_CHECKING:
    from ssgd_analysis.comparison.members import MemberGroup


@click.command(
    epilog=example(
        "for m in sgd s-sgd; do for s in 0 1 2; do ssgd-analyze train --method $m --data "
        "digits --model mlp --epochs 5 --seed $s --out runs/compare/$m-$s --resume; done; "
        "done; ssgd-analyze compare runs/compare --metric lambda_max"
    )
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option(
    "--group",
    "patterns",
    multiple=True,
    metavar="LABEL=PATTERN",
    help="Weight files of any origin, as 'SAM=sam-*.pt'; may be given several times.",
)
@click.option(
    "--trained-with",
    multiple=True,
    metavar="LABEL=METHOD",
    help="What the weights of a group were trained with, as SAM=sam:rho=0.05, so that a metric of"
    " what the training lowered by design does not count.",
)
@belonging_options
@settings_options(ComparisonSettings)
@settings_options(VerdictRule)
@settings_options(MeasurementSettings, without=("seed", "device"))
@settings_options(PictureSettings)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for report.html, tables and pictures."
)
@json_option
@computing
def command(
    paths: tuple[Path, ...],
    patterns: tuple[str, ...],
    trained_with: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare groups: runs by method and settings, seeds are repeats; and weight files.

    PATHs are runs or folders of runs. Metrics that a run does not have yet are measured, and
    stored in its folder. Weight files that anyone trained are grouped by --group, with their
    --model, --data and --loss; what is measured of them is stored in --out, if it is given. The
    first line answers whether each group is flatter than its baseline, the table below it gives
    the effects, and the details follow.
    """
    from ssgd_analysis.comparison import DEFAULT_METRICS, compare
    from ssgd_analysis.report.tables import (
        answer_notes,
        answer_rows,
        comparison_notes,
        comparison_tables,
    )

    settings = settings_from(ComparisonSettings, options)
    measuring = settings_from(MeasurementSettings, options)
    with console.Display() as progress:
        groups = _groups(patterns, trained_with, out, measuring, options, progress)
        _check_number(paths, groups)
        with _folder(out):
            found = compare(
                [*paths, *groups],
                metrics=settings.metrics or DEFAULT_METRICS,
                baseline=settings.baseline,
                loss_tolerance=settings.loss_tolerance,
                match_loss=settings.match_loss,
                match_by=settings.match_by,
                correlate=settings.correlate,
                paired=settings.paired,
                rule=settings_from(VerdictRule, options),
                settings=measuring,
                progress=progress,
            )
    look = settings_from(PictureSettings, options)
    written = [] if out is None else found.save(out, pictures=look)
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


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[None]:
    """Make the folder, so that a wrong one is refused at once; wrong input leaves no empty one."""
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import make_folder

    new = out is not None and not out.exists()
    if out is not None:
        make_folder(out)
    try:
        yield
    except InputError:
        if new and out is not None:
            with contextlib.suppress(OSError):  # measurements that are done stay
                out.rmdir()
        raise


def _groups(
    patterns: tuple[str, ...],
    trained_with: tuple[str, ...],
    out: Path | None,
    settings: MeasurementSettings,
    options: dict[str, Any],
    progress: console.Display,
) -> "list[MemberGroup]":
    """The groups of weight files, every file opened and evaluated."""
    from ssgd_analysis.comparison import weight_groups
    from ssgd_analysis.comparison.patterns import group_files, labelled
    from ssgd_analysis.errors import InputError

    names = ("model", "data", "loss", "count", "weights", "stream")
    belongs = {name: options[name] for name in names}
    if not patterns:
        given = given_options({**belongs, "trained_with": trained_with})
        if given:
            name = next(iter(given)).replace("_", "-")
            raise InputError(
                f"--{name} belongs to weight files: name them by --group LABEL=PATTERN"
            )
        return []
    return weight_groups(
        group_files(patterns),
        **belongs,
        trained_with=labelled(trained_with),
        settings=settings,
        folder=out,
        progress=progress,
    )


def _check_number(paths: tuple[Path, ...], groups: "list[MemberGroup]") -> None:
    """Refuse too few groups before the output folder is made."""
    from ssgd_analysis.errors import InputError

    if not paths and len(groups) < 2:
        only = f"only the group {groups[0].name} is given" if groups else "nothing is given"
        raise InputError(
            f"{only}: add runs or folders of runs, or --group LABEL=PATTERN for weight files"
        )
