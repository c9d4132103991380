"""``ssgd-analyze sharpness``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    COUNT,
    POSITIVE,
    Bytes,
    Choice,
    checkpoint_options,
    computing,
    example,
    json_option,
    load_checkpoints,
    settings_from,
    settings_options,
)

from ssgd_analysis.settings.pictures import PictureSettings
from ssgd_analysis.settings.sharpness import SharpnessFields


@click.command(
    epilog=example(
        "ssgd-analyze train --method sgd --data digits --model mlp --epochs 5 --out "
        "runs/sharpness --resume && ssgd-analyze sharpness runs/sharpness --top 3 --metric "
        "expected"
    )
)
@checkpoint_options()
@settings_options(SharpnessFields, without=("seed",))
@click.option(
    "--layers",
    multiple=True,
    metavar="PATTERN",
    help="Only parameters whose names match, e.g. 'conv*'.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Predict memory and time; do not measure.")
@click.option(
    "--memory-budget",
    type=Bytes(),
    help="Memory for results that products share (default: half of the free memory).",
)
@click.option(
    "--time-budget",
    type=POSITIVE,
    metavar="SECONDS",
    help="Measure as well as this time allows, and say what did not fit.",
)
@click.option(
    "--product",
    type=Choice(["auto", "linear", "compiled", "graph", "difference"]),
    default="auto",
    help="How to compute products with the matrix (default: auto, the fastest in a short test).",
)
@click.option(
    "--micro-batch",
    type=COUNT,
    help="Examples per product (default: found by a short test).",
)
@click.option("--save-vectors", is_flag=True, help="Save the eigenvectors in --out.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for sharpness.json and pictures."
)
@settings_options(PictureSettings)
@click.option("--html", is_flag=True, help="Also write one page with all results in --out.")
@click.option("--resume", is_flag=True, help="Reuse the finished checkpoints in --out.")
@json_option
@computing
def command(
    checkpoints: tuple[str, ...],
    only_plan: bool,
    save_vectors: bool,
    time_budget: float | None,
    out: Path | None,
    html: bool,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the curvature of the loss at one or more checkpoints.

    A CHECKPOINT is a run (its final weights), RUN@STEP, a weight file inside a run, or a
    foreign weight file (safetensors or torch, or a folder) with --model and --data. Every
    eigenvalue comes with its residual and sampling error, the trace with the probes' error.
    With a --loss of (model, batch), models and data may be of any kind.
    """
    from ssgd_analysis.code_hash import code_hash
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import make_folder
    from ssgd_analysis.sharpness import CheckpointProblem, measure_checkpoints, predicted_plan
    from ssgd_analysis.sharpness.tables import (
        checkpoint_tables,
        checkpoint_warnings,
        difference_tables,
    )

    asked = {"save-vectors": save_vectors, "resume": resume, "html": html}
    if out is None and any(asked.values()):
        raise InputError(f"--{next(name for name in asked if asked[name])} needs --out")
    pictures = settings_from(PictureSettings, options)
    settings = _settings(options)
    opened = load_checkpoints(checkpoints, options)
    if out is not None:
        make_folder(out)
    problems = (
        CheckpointProblem(
            checkpoint.name,
            checkpoint.problem(
                options["split"],
                samples=options["samples"],
                batch_size=options["batch_size"],
                layers=options["layers"],
            ),
            options["split"],
            [code_hash(name) for name in checkpoint.references.values()],
            checkpoint.references["loss"],
            _notes(checkpoint, options["loss"]),
        )
        for checkpoint in opened
    )
    with console.Display() as progress:
        if only_plan:
            plans = [predicted_plan(problem, settings, progress=progress) for problem in problems]
            records = None
        else:
            records = measure_checkpoints(
                problems,
                settings,
                count=len(opened),
                time_budget=time_budget,
                folder=out,
                resume=resume,
                with_vectors=save_vectors,
                progress=progress,
            )
    if records is None:
        _answer_plans(plans, as_json)
        return
    files = [] if out is None else records.save(out, html=html, pictures=pictures)
    answer = records.to_json()
    if as_json:
        console.answer_json(answer)
        return
    for result in answer["checkpoints"]:
        _print(checkpoint_tables(result))
        for warning in checkpoint_warnings(result):
            console.say(f"Warning: {warning}")
    _print(difference_tables(answer.get("differences", [])))
    for picture in files[1:]:
        console.answer(str(picture))


def _notes(checkpoint: Any, loss: str | None) -> list[str]:
    """That the loss was assumed, where neither a run nor the user says which it is."""
    if checkpoint.run is not None or loss is not None:
        return []
    return [f"no --loss was given, so {checkpoint.references['loss']} is assumed"]


def _settings(options: dict[str, Any]) -> Any:
    from ssgd_analysis.curvature import Options
    from ssgd_analysis.files import cache_folder
    from ssgd_analysis.sharpness import SharpnessSettings

    return settings_from(
        SharpnessSettings,
        options,
        options=Options(
            strategy=None if options["product"] == "auto" else options["product"],
            micro_batch=options["micro_batch"],
            memory=options["memory_budget"],
        ),
        plans=cache_folder() / "plans",
    )


def _answer_plans(plans: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        console.answer_json({"checkpoints": plans})
        return
    for found in plans:
        console.answer(f"{found['checkpoint']}: {found['plan']['text']}")


def _print(parts: Iterable[Any]) -> None:
    for part in parts:
        if isinstance(part, str):
            console.answer(part)
        else:
            console.answer_table(part.header, part.rows, title=part.title)
