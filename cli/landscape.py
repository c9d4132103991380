"""``ssgd-analyze landscape``."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    checkpoint_options,
    command_line,
    computing,
    example,
    json_option,
    load_checkpoints,
    settings_from,
    settings_options,
)

from ssgd_analysis.settings.landscape import LandscapeSettings
from ssgd_analysis.settings.pictures import PictureSettings

if TYPE_CHECKING:
    from ssgd_analysis.data import Split
    from ssgd_analysis.landscapes import LandscapeRecord, NamedProblem
    from ssgd_analysis.landscapes.evaluation import Plans
    from ssgd_analysis.ranks import Ranks


@click.command(
    epilog=example(
        "ssgd-analyze train --method sgd --data digits --model mlp --epochs 5 --out "
        "runs/landscape --resume && ssgd-analyze landscape runs/landscape --dims 2 --points "
        "15 --html --out pictures"
    )
)
@checkpoint_options(splits=("train", "test", "val", "both"))
@settings_options(LandscapeSettings, without=("seed",))
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Your own directions, in a weight file or .npy; may be given twice.",
)
@click.option("--tune", is_flag=True, help="Measure first how the points are evaluated fastest.")
@click.option("--plan", help="Evaluate by the plan of an earlier landscape, e.g. traced:128.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("landscape"),
    help="Folder for arrays and pictures (default: landscape).",
)
@settings_options(PictureSettings)
@click.option("--html", is_flag=True, help="Also write an interactive page in one file.")
@click.option("--movie", is_flag=True, help="Also write an animation of the trajectory (2-D).")
@click.option("--resume", is_flag=True, help="Continue a call that was interrupted.")
@json_option
@computing
def command(checkpoints: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Draw the loss around one or more checkpoints, on shared directions and one scale.

    Writes landscape.npz, landscape.json, pictures, a table and, for planes, files for ParaView.
    With filter or layer normalisation alpha is a fraction of each filter's or layer's norm; with
    none it is a distance. `between` draws the straight line from the first checkpoint (alpha 0)
    to the second (alpha 1), or the plane through three. `--split both` shows train and test.
    Several processes share the points: torchrun --nproc-per-node 2 --no-python ssgd-analyze
    landscape ...
    """
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.landscapes import LandscapeRecord
    from ssgd_analysis.ranks import launched, local_device

    settings = _settings(options)
    pictures = settings_from(PictureSettings, options)
    options["device"] = local_device(options["device"])
    with launched() as ranks:
        try:
            record = _record(checkpoints, settings, out, options, ranks)
        except InputError:
            if ranks.first:
                raise
            sys.exit(2)  # the first process says it once
        if not ranks.first:
            return
        if record.resumed:
            console.say(f"{out} is finished; nothing to compute")
        for note in record.document["notes"]:
            console.say(f"Note: {note}")
        files = record.save(out, html=options["html"], movie=options["movie"], pictures=pictures)
    if as_json:
        console.answer_json(LandscapeRecord.read(out).to_json())
        return
    for file in files:
        console.answer(str(file))


def _settings(options: dict[str, Any]) -> LandscapeSettings:
    from ssgd_analysis.errors import InputError

    directions = options["directions"] or ("vectors" if options["vectors"] else "random")
    if directions == "between" and (
        options["normalize"] not in (None, "auto", "none") or options["biases"]
    ):
        raise InputError(
            "--directions between does not rescale the line: leave out --normalize and --biases"
        )
    if (directions == "vectors") != bool(options["vectors"]):
        if options["vectors"]:
            raise InputError(f"--vectors FILE needs --directions vectors, not {directions}")
        raise InputError("--directions vectors needs --vectors FILE")
    settings = settings_from(LandscapeSettings, options | {"directions": directions})
    if options["movie"] and (settings.dims, settings.directions) != (2, "trajectory"):
        raise InputError("--movie shows a trajectory: add --dims 2 --directions trajectory")
    return settings


def _record(
    checkpoints: tuple[str, ...],
    settings: LandscapeSettings,
    out: Path,
    options: dict[str, Any],
    ranks: "Ranks",
) -> "LandscapeRecord":
    """The landscape, with the command that makes it again."""
    from ssgd_analysis.landscapes import landscape
    from ssgd_analysis.progress import SILENT

    plans = _plans(options["plan"], options["split"])
    named, references = _named_problems(checkpoints, settings, options)
    origin = {name: options[name] for name in ("split", "samples", "batch_size", "dtype")}
    command = _command(checkpoints, settings, options, out)
    with console.Display() as display:
        record = landscape(
            named,
            settings,
            folder=out,
            resume=options["resume"],
            tune=options["tune"],
            plans=plans,
            origin={**origin, **references, "command": command},
            ranks=ranks,
            progress=display if ranks.first else SILENT,
        )
    if options["tune"] and not record.resumed:  # measured again, it could be another
        tuned = options | {"plan": _plan_text(record.plans), "tune": False}
        command = _command(checkpoints, settings, tuned, out)
        record = dataclasses.replace(record, document=record.document | {"command": command})
    return record


def _command(
    checkpoints: tuple[str, ...],
    settings: LandscapeSettings,
    options: dict[str, Any],
    out: Path,
) -> str:
    """The command line that makes the same landscape again."""
    values = dataclasses.asdict(settings)
    if settings.directions == "between":
        del values["normalize"], values["biases"]
    values["no_curvature"] = not values.pop("curvature")
    for name in (
        "split",
        "samples",
        "batch_size",
        "model",
        "data",
        "loss",
        "count",
        "stream",
        "dtype",
    ):
        values[name] = options[name]
    for name in (
        "weights",
        "device",
        "data_dir",
        "plan",
        "vectors",
        "tune",
        "html",
        "movie",
        "width",
        "title",
    ):
        values[name] = options[name]
    values["no_small_print"] = options["small_print"] is False
    values["out"] = out
    return command_line("landscape", checkpoints, values)


def _plans(text: str | None, split: str) -> "Plans":
    """Plans from "STRATEGY:CHUNK" for one split, or two of them with a comma for both."""
    from ssgd_analysis.errors import InputError

    names = ("main", "test") if split == "both" else ("main",)
    parts = [part.partition(":") for part in text.split(",")] if text else []
    if text and not (len(parts) == len(names) and all(chunk.isdigit() for _, _, chunk in parts)):
        example = ",".join(["traced:128"] * len(names))
        raise InputError(f"--plan '{text}' should be like {example}")
    return {
        name: {"way": strategy, "chunk": int(chunk)}
        for name, (strategy, _, chunk) in zip(names, parts, strict=False)
    }


def _plan_text(plans: "Plans") -> str:
    """The same as text, for ``--plan``."""
    return ",".join(f"{plan['way']}:{plan['chunk']}" for plan in plans.values())


def _named_problems(
    checkpoints: tuple[str, ...], settings: LandscapeSettings, options: dict[str, Any]
) -> "tuple[list[NamedProblem], dict[str, str]]":
    """The checkpoints, and the references of model, data and loss of the first one."""
    from ssgd_analysis.code_hash import code_hash
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.landscapes import NamedProblem
    from ssgd_analysis.runs.tensors import read_tensors
    from ssgd_analysis.runs.vectors import read_vectors

    vectors = [vector for path in options["vectors"] for vector in read_vectors(path)]
    main, *also = ("train", "test") if options["split"] == "both" else (options["split"],)
    opened = load_checkpoints(checkpoints, options)
    named = []
    for checkpoint in opened:
        problems = []
        for split in (main, *also):
            samples = options["samples"]
            if also and samples:  # the first of each split, or all of it
                samples = min(samples, len(checkpoint.data.split(split)))
            problems.append(
                checkpoint.problem(split, samples=samples, batch_size=options["batch_size"] or 512)
            )
        for problem in problems:
            problem.check()
        path = {}
        if settings.directions == "trajectory":
            if checkpoint.run is None:
                raise InputError(f"{checkpoint.name} is not part of a run, so it has no trajectory")
            files = checkpoint.run.checkpoints()
            path = {step: read_tensors(file)[0] for step, file in files.items()}
        named.append(
            NamedProblem(
                checkpoint.name,
                problems[0],
                calibration=_calibration(checkpoint.data.train, options["samples"]),
                path=path,
                code=" ".join(code_hash(name) for name in checkpoint.references.values()),
                test=problems[1] if also else None,
                vectors=vectors,
            )
        )
    return named, opened[0].references


def _calibration(train: "Split", samples: int | None) -> list[Any]:
    """The training examples for BatchNorm's statistics: as many as the losses are of."""
    return train.first(None if samples is None else min(samples, len(train))).batches(512)
