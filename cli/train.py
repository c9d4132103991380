"""``ssgd-analyze train``."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    AMOUNT,
    COUNT,
    NATURAL,
    POSITIVE,
    computing,
    example,
    json_option,
)

from ssgd_analysis.errors import InputError, WorkError

if TYPE_CHECKING:
    from ssgd_analysis.ranks import Ranks


@click.command(
    epilog=example(
        "ssgd-analyze train --method s-sgd --data digits --model mlp --set noise_scale=0.2 "
        "--epochs 20 --out runs/train"
    )
)
@click.option("--method", help="How to train: `ssgd-analyze list methods`.")
@click.option("--data", help="Data: a name of `ssgd-analyze list data`, or a reference.")
@click.option("--model", help="Model: a name of `ssgd-analyze list models`, or a reference.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the run.")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A setting of the method."
)
@click.option(
    "--optimizer",
    help="Base optimizer: `ssgd-analyze list optimizers` (default: the method's, else sgd).",
)
@click.option(
    "--optimizer-set",
    "optimizer_assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the base optimizer's own.",
)
@click.option(
    "--lr",
    type=POSITIVE,
    help="Peak learning rate (default: 0.1; other optimizers than sgd: theirs).",
)
@click.option(
    "--lr-scaling",
    metavar="RULE",
    help="none, linear or sqrt: the rate is for --base-batch and grows with the batch or its"
    " square root (default: none).",
)
@click.option("--base-batch", type=COUNT, help="For --lr-scaling (default: 128).")
@click.option(
    "--momentum", type=AMOUNT, help="Momentum (default: sgd 0.9, rmsprop 0, lars 0.9, muon 0.95)."
)
@click.option("--nesterov", is_flag=True, default=None, help="Nesterov momentum.")
@click.option(
    "--weight-decay", type=AMOUNT, help="Weight decay, at the clean weights (default: 0)."
)
@click.option("--schedule", help="constant, step or cosine (default: constant).")
@click.option("--warmup", type=AMOUNT, metavar="EPOCHS", help="Linear warm-up (default: 0).")
@click.option("--batch-size", type=COUNT, help="Examples of a minibatch (default: 128).")
@click.option("--epochs", type=COUNT, help="Passes over the data (default: 30).")
@click.option(
    "--accumulate", type=COUNT, metavar="N", help="Micro-batches of each pass (default: 1)."
)
@click.option(
    "--clip", type=POSITIVE, metavar="NORM", help="Shorten longer gradients to it (default: off)."
)
@click.option(
    "--early-stop",
    type=NATURAL,
    metavar="EPOCHS",
    help="Stop after so many epochs without a lower val_loss, give out the best epoch's weights;"
    " needs --val (default: 0, never).",
)
@click.option(
    "--label-smoothing", type=AMOUNT, help="Of the training loss (default: 0); cross_entropy only."
)
@click.option(
    "--train-samples", type=NATURAL, metavar="N", help="Use N training examples (default: 0, all)."
)
@click.option("--label-noise", type=AMOUNT, help="Share of wrong training labels (default: 0).")
@click.option("--val", type=AMOUNT, help="Share of train held out for choices (default: 0).")
@click.option(
    "--augment/--no-augment", default=None, help="The data's usual augmentation (default: on)."
)
@click.option("--loss", help="cross_entropy, mse or a reference (default: cross_entropy).")
@click.option("--count", help="Reference of a function that counts a batch's examples.")
@click.option(
    "--precision",
    help="Of the forward pass: fp32, bf16 or fp16, with a loss scale (default: fp32).",
)
@click.option("--compile", is_flag=True, default=None, help="torch.compile the forward pass.")
@click.option(
    "--channels-last",
    metavar="WHEN",
    help="Memory format of images: on, off or auto, for convolutional models (default: auto).",
)
@click.option(
    "--save-every", type=NATURAL, metavar="EPOCHS", help="Keep checkpoints (default: 0, none)."
)
@click.option(
    "--track",
    multiple=True,
    metavar="KIND[:N]",
    help="Measure through training: sharpness[:K], trace[:PROBES], third-order[:DRAWS].",
)
@click.option(
    "--track-every", type=COUNT, metavar="EPOCHS", help="Between measurements (default: 1)."
)
@click.option(
    "--track-samples", type=COUNT, help="First training examples to use, at most (default: 2048)."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it stopped.")
@json_option
@computing
def command(
    out: Path,
    assignments: tuple[str, ...],
    optimizer_assignments: tuple[str, ...],
    resume: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train one model with one method.

    The folder --out gets config.json, history.jsonl (a line an epoch), final.safetensors and
    what --resume needs. With --resume the other options may be left out; they are the run's.
    With --track also tracking.jsonl (a line a measurement) and the picture tracking.png.
    Under torchrun each process takes its part of every minibatch.
    """
    from ssgd_analysis.ranks import launched

    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    with launched() as ranks:
        try:
            result, finished = _train(
                out, chosen, assignments, optimizer_assignments, resume, ranks
            )
        except (InputError, WorkError) as error:
            if ranks.first:
                raise
            sys.exit(2 if isinstance(error, InputError) else 1)  # the first process says it once
    if ranks.first:
        _answer(out, result, resume and finished, as_json)


def _train(
    out: Path,
    chosen: dict[str, Any],
    assignments: tuple[str, ...],
    optimizer_assignments: tuple[str, ...],
    resume: bool,
    ranks: "Ranks",
) -> tuple[dict[str, Any], bool]:
    """What ``train`` returns, and whether it was there before."""
    from ssgd_analysis.progress import SILENT
    from ssgd_analysis.ranks import own_device
    from ssgd_analysis.runs import Run, TrainConfig
    from ssgd_analysis.training import train

    run = Run(out)
    known = vars(ranks.once(run.config)) if resume and ranks.once(lambda: run.exists) else {}
    chosen = _joined(known, chosen)
    chosen["device"] = own_device(chosen["device"], ranks)
    _assign(chosen, assignments, optimizer_assignments)
    config = TrainConfig(**chosen)
    finished = ranks.once(lambda: run.exists and run.finished)
    with console.Display() if ranks.first else contextlib.nullcontext(SILENT) as progress:
        try:
            result = train(config, out, resume=resume, progress=progress, ranks=ranks)
        except WorkError:  # how the curvature went before a divergence is worth seeing
            if ranks.first:
                _pictures(run)
            raise
    if "tracking" in result and ranks.first:
        result["tracking"]["pictures"] = _pictures(run, kept=finished)
    return result, finished


def _assign(
    chosen: dict[str, Any], assignments: tuple[str, ...], optimizer_assignments: tuple[str, ...]
) -> None:
    """Put what ``--set`` and ``--optimizer-set`` say among the settings."""
    from ssgd_analysis.methods.base import parse_assignments
    from ssgd_analysis.runs import TrainConfig

    if assignments:
        chosen["settings"] = TrainConfig.parsed_settings(chosen["method"], list(assignments))
    if optimizer_assignments:
        chosen["optimizer_settings"] = parse_assignments("--optimizer-set", optimizer_assignments)


def _joined(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, over the settings of a run that is resumed."""
    from ssgd_analysis.devices import resolve_device

    chosen: dict[str, Any] = dict(given)
    if "track" in chosen:
        chosen["track"] = list(chosen["track"])
    if "data_dir" in chosen:
        chosen["data_dir"] = str(chosen["data_dir"].resolve())
    context = click.get_current_context()
    for key in ("seed", "device"):
        default = context.get_parameter_source(key) is click.core.ParameterSource.DEFAULT
        if known and default:
            chosen[key] = known[key]
    if known:
        resolve_device(chosen["device"])  # it may be another machine
    for key in ("method", "data", "model"):
        if key not in chosen and key not in known:
            raise InputError(f"missing option --{key}")
    return {**known, **chosen}


def _answer(out: Path, result: dict[str, Any], was_done: bool, as_json: bool) -> None:
    if was_done:
        console.say(f"{out} is finished; nothing to do")
    if as_json:
        console.answer_json(result)
        return
    console.answer_runs([(out, result["final"])])
    if tracking := result.get("tracking"):
        console.say(
            f"tracking took {tracking['share']:.0%} of the time ({tracking['seconds']:.1f} s,"
            f" {tracking['measurements']} measurements, {tracking['products']} products)"
        )
        for path in tracking["pictures"]:
            console.answer(str(path))


def _pictures(run: Any, *, kept: bool = False) -> list[Path]:
    """Draw what was tracked, if anything; ``kept``: unless there is a picture."""
    from ssgd_analysis.pictures.tracking import tracking_pictures

    paths = [run.folder / f"tracking.{kind}" for kind in ("png", "pdf")]
    records = run.tracked()
    if not records:
        return []
    if kept and all(path.is_file() for path in paths):
        return paths
    return tracking_pictures(records, vars(run.config()), run.folder / "tracking")
