"""``ssgd-analyze train``."""

from pathlib import Path
from typing import Any

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
@click.option("--optimizer", help="Base optimizer: sgd, adam, adamw, rmsprop (default: sgd).")
@click.option(
    "--lr", type=POSITIVE, help="Peak learning rate (default: 0.1; adam, adamw, rmsprop 0.001)."
)
@click.option("--momentum", type=AMOUNT, help="Momentum (default: sgd 0.9, rmsprop 0).")
@click.option("--nesterov", is_flag=True, default=None, help="Nesterov momentum.")
@click.option(
    "--weight-decay", type=AMOUNT, help="Weight decay, at the clean weights (default: 0)."
)
@click.option("--schedule", help="constant, step or cosine (default: constant).")
@click.option("--warmup", type=AMOUNT, metavar="EPOCHS", help="Linear warm-up (default: 0).")
@click.option("--batch-size", type=COUNT, help="Examples of a minibatch (default: 128).")
@click.option("--epochs", type=COUNT, help="Passes over the data (default: 30).")
@click.option("--label-noise", type=AMOUNT, help="Share of wrong training labels (default: 0).")
@click.option("--val", type=AMOUNT, help="Share of train held out for choices (default: 0).")
@click.option(
    "--augment/--no-augment", default=None, help="The data's usual augmentation (default: on)."
)
@click.option("--loss", help="cross_entropy, mse or a reference (default: cross_entropy).")
@click.option("--precision", help="fp32 or bf16 (default: fp32).")
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
    out: Path, assignments: tuple[str, ...], resume: bool, as_json: bool, **given: Any
) -> None:
    """Train one model with one method.

    The folder --out gets config.json, history.jsonl (a line an epoch), final.safetensors and
    what --resume needs. With --resume the other options may be left out; they are the run's.
    With --track also tracking.jsonl (a line a measurement) and the picture tracking.png.
    """
    from ssgd_analysis.devices import resolve_device
    from ssgd_analysis.training import Run, TrainConfig, train

    context = click.get_current_context()
    run = Run(out)
    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    if given["track"]:
        chosen["track"] = list(given["track"])
    if given["data_dir"] is not None:
        chosen["data_dir"] = str(given["data_dir"].resolve())
    if resume and run.exists:
        known = run.config()
        for key in ("seed", "device"):
            if context.get_parameter_source(key) is click.core.ParameterSource.DEFAULT:
                chosen[key] = getattr(known, key)
        chosen = {**vars(known), **chosen}
        resolve_device(chosen["device"])  # it may be another machine
    else:
        for key in ("method", "data", "model"):
            if key not in chosen:
                raise InputError(f"missing option --{key}")
    if assignments:
        chosen["settings"] = TrainConfig.parsed_settings(chosen["method"], list(assignments))
    config = TrainConfig(**chosen)
    finished = run.exists and run.finished
    with console.Display() as progress:
        try:
            result = train(config, out, resume=resume, progress=progress)
        except WorkError:  # how the curvature went before a divergence is worth seeing
            _pictures(run)
            raise
    if resume and finished:
        console.say(f"{out} is finished; nothing to do")
    tracking = result.get("tracking")
    if tracking:
        tracking["pictures"] = _pictures(run, kept=finished)
    if as_json:
        console.answer_json(result)
        return
    keys = ["epoch", "gradients", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    final = result["final"]
    console.answer_table(["run", *keys], [[str(out), *console.checkpoint_row(final, keys)]])
    if tracking:
        console.say(
            f"tracking took {tracking['share']:.0%} of the time ({tracking['seconds']:.1f} s,"
            f" {tracking['measurements']} measurements, {tracking['products']} products)"
        )
        for path in tracking["pictures"]:
            console.answer(str(path))


def _pictures(run: Any, *, kept: bool = False) -> list[Path]:
    """Draw what was tracked, if anything; ``kept``: unless there is a picture."""
    from ssgd_analysis.report.tracking import tracking_pictures

    paths = [run.folder / f"tracking.{kind}" for kind in ("png", "pdf")]
    records = run.tracked()
    if not records:
        return []
    if kept and all(path.is_file() for path in paths):
        return paths
    return tracking_pictures(records, vars(run.config()), run.folder / "tracking")
