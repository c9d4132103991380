"""``ssgd-analyze compare``."""

from pathlib import Path

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import AMOUNT, COUNT, POSITIVE, computing, example, json_option


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
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="A flatness metric, maybe with settings as expected:sigma=0.2,law=binary; a name of the"
    " history; or all, for every flatness metric (default: test_accuracy, train_loss, lambda_max,"
    " trace, expected, adaptive_worst).",
)
@click.option("--baseline", help="Method or group to compare with (default: sgd).")
@click.option(
    "--loss-tolerance",
    type=AMOUNT,
    default=0.1,
    help="Largest relative difference of train losses that is still comparable (default: 0.1).",
)
@click.option("--match-loss", is_flag=True, help="Compare at equal train loss.")
@click.option(
    "--match-by",
    type=click.Choice(["checkpoints", "temperature"]),
    help="How to reach equal train loss: choose among saved checkpoints, or scale the logits by a"
    " temperature fitted to the train split; implies --match-loss (default: checkpoints).",
)
@click.option(
    "--normalize-logits",
    is_flag=True,
    help="Scale the logits to standard deviation one over the classes, so that their size has no"
    " effect.",
)
@click.option(
    "--margin",
    type=POSITIVE,
    default=0.1,
    help="Smallest difference that matters, relative to the baseline's mean (default: 0.1).",
)
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    default="train",
    help="Examples to measure on (default: train).",
)
@click.option("--samples", type=COUNT, help="First N examples (default: all).")
@click.option(
    "--correlate",
    "correlations",
    is_flag=True,
    help="Also give the rank correlation of every metric with test error and generalisation gap.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for report.html, tables and pictures."
)
@json_option
@computing
def command(
    paths: tuple[Path, ...],
    metrics: tuple[str, ...],
    baseline: str | None,
    loss_tolerance: float,
    match_loss: bool,
    match_by: str | None,
    normalize_logits: bool,
    margin: float,
    split: str,
    samples: int | None,
    correlations: bool,
    out: Path | None,
    as_json: bool,
    device: str,
    data_dir: Path | None,
    seed: int,
) -> None:
    """Compare runs: groups by method and settings, seeds are repeats.

    PATHs are runs or folders of runs. Metrics that a run does not have yet are measured, and
    stored in its folder.
    """
    from ssgd_analysis.comparison import DEFAULT_METRICS, MeasureSettings, Rule, compare
    from ssgd_analysis.files import make_folder
    from ssgd_analysis.report.tables import comparison_notes, comparison_tables

    if out is not None:
        make_folder(out)  # so that a wrong one is refused before anything is measured
    with console.Display() as progress:
        found = compare(
            paths,
            metrics=metrics or DEFAULT_METRICS,
            baseline=baseline,
            loss_tolerance=loss_tolerance,
            match_loss=match_loss or match_by is not None,
            match_by=match_by or "checkpoints",
            rule=Rule(margin=margin),
            settings=MeasureSettings(split, samples, seed, device, data_dir, normalize_logits),
            correlations=correlations,
            progress=progress,
        )
    written = [] if out is None else found.save(out)
    if as_json:
        console.answer_json(found.to_json())
        return
    document = found.document()
    for title, table in comparison_tables(document):
        console.answer_table(*table, title=title)
        console.answer()
    for note in comparison_notes(document):
        console.answer_text(note) if note else console.answer()
    for path in written:
        console.answer(str(path))
