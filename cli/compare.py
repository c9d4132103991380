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
    help="A flatness metric, also with settings as expected:sigma=0.2,law=binary, a name of the"
    " history, or all, every flatness metric (default: test_accuracy, train_loss, lambda_max,"
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
    help="Equal train loss by choice among kept checkpoints, or by logits scaled by a temperature"
    " fitted on train; implies --match-loss (default: checkpoints).",
)
@click.option(
    "--normalize-logits",
    is_flag=True,
    help="Logits of standard deviation one over the classes, so that their scale has no effect.",
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
    "correlating",
    is_flag=True,
    help="Rank correlation of every metric with test error and generalisation gap.",
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
    correlating: bool,
    out: Path | None,
    as_json: bool,
    device: str,
    data_dir: Path | None,
    seed: int,
) -> None:
    """Compare runs: groups by method and settings, seeds are repeats.

    PATHs are runs or folders of runs. Metrics that no run has yet are measured, and kept in
    the run's folder.
    """
    from ssgd_analysis.compare import (
        Measurements,
        MeasureSettings,
        Rule,
        compare,
        find_runs,
        group_runs,
    )
    from ssgd_analysis.compare.compare import DEFAULT_METRICS, seed_values
    from ssgd_analysis.compare.correlate import correlate
    from ssgd_analysis.compare.measurements import is_flatness
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import make_folder
    from ssgd_analysis.flatness import METRICS, all_metrics
    from ssgd_analysis.pictures.correlations import correlation_tables
    from ssgd_analysis.report.comparison import write_comparison
    from ssgd_analysis.report.tables import group_rows, how, narrow, outcome_rows, pair_tables

    if normalize_logits and match_by == "temperature":
        raise InputError(
            "--normalize-logits takes out the scale of the logits that --match-by temperature sets:"
            " choose one of them"
        )
    finished, unfinished = find_runs(paths)
    groups = group_runs(finished)
    if out is not None:
        make_folder(out)
    wanted = all_metrics(metrics) or DEFAULT_METRICS
    with console.Display() as progress:
        progress.start("measuring", len(finished) * sum(map(is_flatness, wanted)))
        for run in unfinished:
            progress.warn(f"{run.folder} is not finished and left out")
        measure = Measurements(
            wanted,
            MeasureSettings(split, samples, seed, device, data_dir, normalize_logits),
            lambda run, metric: progress.advance(1, f"{metric} of {run.folder.name}"),
        )
        result = compare(
            groups,
            measure,
            metrics=wanted,
            baseline=baseline,
            loss_tolerance=loss_tolerance,
            match_loss=match_loss or match_by is not None,
            match_by=match_by or "checkpoints",
            rule=Rule(margin=margin),
            train_loss=measure.train_loss,
            why=measure.why,
            optional=METRICS if "all" in metrics else (),
        )
        result["normalized_logits"] = normalize_logits
        values = {group.name: seed_values(group, wanted, measure) for group in groups}
        if correlating:
            result["correlations"] = correlate(groups, measure, metrics=wanted)
    written = [] if out is None else write_comparison(out, result, values)
    if as_json:
        console.answer_json(result)
        return
    console.answer_table(*narrow(*group_rows(result)))
    console.answer()
    for title, table in pair_tables(result["tests"]).items():
        console.answer_table(*table, title=title)
        console.answer()
    if result["outcomes"]:
        console.answer_table(*outcome_rows(result["outcomes"]), title="outcomes")
        console.answer()
    if correlating:
        for title, table in correlation_tables(result["correlations"]).items():
            console.answer_table(*table, title=title)
            console.answer()
        console.answer(f"correlations: {result['correlations']['convention']}")
    for one in result["missing"]:
        console.answer(f"{one['metric']} is missing in {one['run']}: {one['why']}")
    for group in result["groups"]:
        if len(group["seeds"]) < 2:
            console.answer(f"{group['name']}: one seed carries no interval; train at least two")
    if result["tests"]:
        for text in (result["rule"]["text"], how(result)):
            console.answer_text(text)
            console.answer()
    console.answer_text(result["verdict"])
    for path in written:
        console.answer(str(path))
