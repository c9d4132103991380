"""``ssgd-analyze connect``."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    Choice,
    checkpoint_options,
    command_line,
    computing,
    example,
    json_option,
    load_checkpoints,
    settings_from,
    settings_options,
)

from ssgd_analysis.records import number
from ssgd_analysis.settings.connection import ConnectionSettings
from ssgd_analysis.settings.pictures import PictureSettings

if TYPE_CHECKING:
    from ssgd_analysis.connections import ConnectionRecord

SPLITS = ("train", "test")


@click.command(
    epilog=example(
        "ssgd-analyze train --method sgd --data digits --model mlp --epochs 5 --out "
        "runs/connect-a --resume && ssgd-analyze train --method sgd --data digits --model mlp "
        "--epochs 5 --seed 1 --out runs/connect-b --resume && ssgd-analyze connect "
        "runs/connect-a runs/connect-b --epochs 10 --out connection"
    )
)
@checkpoint_options(splits=())
@click.option(
    "--path",
    "kinds",
    multiple=True,
    type=Choice(["line", "matched", "bezier", "chain"]),
    help="A path to try; may be given several times (default: line, matched and bezier).",
)
@settings_options(ConnectionSettings, without=("seed",))
@settings_options(PictureSettings)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("connection"),
    help="Folder for arrays and pictures (default: connection).",
)
@click.option("--save-weights", is_flag=True, help="Save bends and matched weights in --out.")
@click.option("--html", is_flag=True, help="Also write one page with all results in --out.")
@click.option("--resume", is_flag=True, help="Reuse the finished paths in --out.")
@json_option
@computing
def command(
    checkpoints: tuple[str, ...],
    kinds: tuple[str, ...],
    out: Path,
    save_weights: bool,
    html: bool,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Connect two checkpoints of one architecture: how high is the barrier between them?

    On the straight line; after permuting the second one's hidden units to match the first's; and
    on a curve that is trained to stay low. On the train split, which curves and BatchNorm's
    statistics are fitted to, and on the test split. Writes connect.json, .npz, .csv and pictures.
    """
    from ssgd_analysis.code_hash import code_hash
    from ssgd_analysis.connections import ConnectionRecord, connect, line
    from ssgd_analysis.connections.compute import DEFAULT_PATHS
    from ssgd_analysis.errors import InputError

    if len(checkpoints) != 2:
        raise InputError(f"connect needs two checkpoints, not {len(checkpoints)}")
    settings = settings_from(ConnectionSettings, options)
    pictures = settings_from(PictureSettings, options)
    kinds = tuple(dict.fromkeys(kinds)) or DEFAULT_PATHS
    first, second = load_checkpoints(checkpoints, options)
    line(first.model, second.model)  # other architectures: refused before data are read
    train = first.data.train.first(options["samples"])
    size = options["batch_size"] or 128
    with console.Display() as progress:
        record = connect(
            _problem(first, "train", options),
            second.model,
            settings,
            paths=kinds,
            test=_problem(first, "test", options),
            calibration=train.batches(512),
            minibatches=lambda random: _shuffled(train, size, random),
            folder=out,
            resume=resume,
            save_weights=save_weights,
            origin={
                "checkpoints": [first.name, second.name],
                "samples": options["samples"],
                "batch_size": size,
                "notes": _differences(first, second, options),
                "command": _command(checkpoints, kinds, settings, options, out),
            },
            code=" ".join(code_hash(n) for c in (first, second) for n in c.references.values()),
            progress=progress,
        )
    if record.resumed:
        console.say(f"{out} is finished; nothing to do")
    else:
        for kind in record.kinds:
            if kind not in record.found:
                console.say(f"{kind}: taken from {out / 'paths' / f'{kind}.npz'}")
        record.save(out, html=html, pictures=pictures)
        record = ConnectionRecord.read(out)
    _answer(record, as_json)


def _problem(checkpoint: Any, split: str, options: dict[str, Any]) -> Any:
    """At least eight batches, so that there is a sampling error; of test as many as there are."""
    from ssgd_analysis.runs.checkpoint import MEASURE_BATCH

    count = len(checkpoint.data.split(split))
    samples = options["samples"]
    if split != "train" and samples is not None:
        samples = min(samples, count)
    size = min(options["batch_size"] or MEASURE_BATCH, (samples or count) // 8)
    return checkpoint.problem(split, samples=samples, batch_size=max(1, size))


def _shuffled(examples: Any, size: int, random: Any) -> Any:
    """All examples in a random order, in batches; those of a loader as it shuffles them."""
    import torch

    from ssgd_analysis.data import BatchedSplit

    if isinstance(examples, BatchedSplit):
        return examples.minibatches(size, random)
    return examples.take(torch.randperm(len(examples), generator=random)).batches(size)


def _differences(first: Any, second: Any, options: dict[str, Any]) -> list[str]:
    """What the two checkpoints do not share."""
    from ssgd_analysis.connections import OTHER_EXAMPLES, same_examples

    notes = list(second.notes)  # the first one's are in its problems
    count = len(first.data.train)
    if len(second.data.train) != count or not same_examples(
        *(_problem(checkpoint, "train", options) for checkpoint in (first, second))
    ):
        notes.append(OTHER_EXAMPLES)
    if first.references["loss"] != second.references["loss"]:
        notes.append(
            "the checkpoints were trained with different losses: that of the first is used"
        )
    return notes


def _command(
    checkpoints: tuple[str, ...], kinds: tuple[str, ...], settings: Any, options: Any, out: Path
) -> str:
    """The command line that does the same again."""
    asked = ["model", "data", "loss", "count", "stream", "weights", "samples", "batch_size"]
    asked += ["dtype", "data_dir"]
    given = {"path": kinds, **dataclasses.asdict(settings)}
    given |= {name: options[name] for name in asked}
    return command_line("connect", checkpoints, {**given, "out": out})


def _answer(record: "ConnectionRecord", as_json: bool) -> None:
    from ssgd_analysis.connections.profile import barrier_text

    answer = record.to_json()
    if as_json:
        console.answer_json(answer)
        return
    rows = []
    for found in answer["paths"]:
        heights = [barrier_text(found["barrier"][split]) for split in SPLITS]
        falls = [barrier_text(found["accuracy_barrier"][split], 100) for split in SPLITS]
        rows.append([found["path"], *heights, *falls, number(found["relative_length"])])
    header = ["path", "loss barrier: train", "test", "accuracy barrier (%): train", "test"]
    console.answer_table([*header, "length / distance"], rows)
    for note in answer["notes"]:
        console.say(f"Note: {note}")
    for found in answer["paths"]:
        for note in found["notes"]:
            console.say(f"Note: {found['path']}: {note}")
    out = Path(answer["out"])
    written = [out / "connect.json", out / "connect.npz", out / "connect.csv"]
    for path in (*written, *answer["pictures"], *answer.get("weights", [])):
        console.answer(str(path))
