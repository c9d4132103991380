"""``ssgd-analyze train``."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    AMOUNT,
    COUNT,
    NATURAL,
    POSITIVE,
    command_line,
    computing,
    example,
    json_option,
)
from ssgd_analysis.cli.train_answers import answer_run, answer_seeds, tracking_pictures
from ssgd_analysis.cli.train_settings import settings_of

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
@click.option(
    "--seeds",
    type=COUNT,
    metavar="N",
    help="Train N seeds, from --seed on, each into its own folder OUT/seed-S.",
)
@click.option(
    "--jobs",
    type=COUNT,
    metavar="N",
    help="With --seeds: processes at once, of one thread each (default: one a core).",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it stopped.")
@json_option
@computing
def command(
    out: Path,
    assignments: tuple[str, ...],
    optimizer_assignments: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    resume: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train one model with one method.

    The folder --out gets config.json, history.jsonl (a line an epoch), final.safetensors and
    what --resume needs. With --resume the other options may be left out; they are the run's.
    With --track also tracking.jsonl (a line a measurement) and the picture tracking.png.
    With --seeds N there are N such folders, OUT/seed-S; --resume finishes the unfinished ones.
    Under torchrun each process takes its part of every minibatch.
    """
    from ssgd_analysis.ranks import launched

    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    both = (assignments, optimizer_assignments)
    with launched() as ranks:
        if seeds is not None:
            if ranks.size > 1:
                raise InputError("--seeds starts processes of its own: leave torchrun out")
            with _interruptible(out, seeds):
                results = _train_seeds(out, seeds, jobs, chosen, both, resume)
            answer_seeds(results, as_json)
            return
        _check_single(out, jobs, resume)
        try:
            with _interruptible(out):
                result, finished = _train(out, chosen, both, resume, ranks)
        except (InputError, WorkError) as error:
            if ranks.first:
                raise
            sys.exit(2 if isinstance(error, InputError) else 1)  # the first process says it once
    if ranks.first:
        answer_run(out, result, resume and finished, as_json)


def _check_single(out: Path, jobs: int | None, resume: bool) -> None:
    """Refuse what only makes sense for several seeds.

    Raises:
        InputError: ``--jobs`` alone, or a folder of several seeds' runs to be resumed.
    """
    if jobs is not None:
        raise InputError("--jobs is for several runs: give --seeds N too")
    several = list(out.glob("seed-*/config.json"))
    if resume and several and not (out / "config.json").exists():
        raise InputError(f"{out} holds the runs of {len(several)} seeds: give --seeds N too")


@contextlib.contextmanager
def _interruptible(out: Path, seeds: int | None = None) -> Iterator[None]:
    """After Ctrl-C, say how to go on.

    Raises:
        WorkError: the work was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        options = {"resume": True, "seeds": seeds, "out": out}
        line = command_line("train", [], options)
        raise WorkError(f"interrupted; what was finished is kept, go on with: {line}") from None


def _train(
    out: Path,
    given: dict[str, Any],
    assignments: tuple[tuple[str, ...], tuple[str, ...]],
    resume: bool,
    ranks: "Ranks",
) -> tuple[dict[str, Any], bool]:
    """The result of ``train``, and whether the run was finished before."""
    from ssgd_analysis.progress import SILENT
    from ssgd_analysis.ranks import own_device
    from ssgd_analysis.runs import Run, TrainConfig
    from ssgd_analysis.training import train

    run = Run(out)
    known = vars(ranks.once(run.config)) if resume and ranks.once(lambda: run.exists) else {}
    chosen = settings_of(known, given, *assignments)
    chosen["device"] = own_device(chosen["device"], ranks)
    config = TrainConfig(**chosen)
    finished = ranks.once(lambda: run.exists and run.finished)
    with console.Display() if ranks.first else contextlib.nullcontext(SILENT) as progress:
        try:
            result = train(config, out, resume=resume, progress=progress, ranks=ranks)
        except WorkError:  # how the curvature went before a divergence is worth seeing
            if ranks.first:
                tracking_pictures(run)
            raise
    if "tracking" in result and ranks.first:
        result["tracking"]["pictures"] = tracking_pictures(run, kept=finished)
    return result, finished


def _train_seeds(
    out: Path,
    seeds: int,
    jobs: int | None,
    given: dict[str, Any],
    assignments: tuple[tuple[str, ...], tuple[str, ...]],
    resume: bool,
) -> list[tuple[Path, Any]]:
    """The folder and the result, or the error, of each seed's run."""
    from ssgd_analysis.runs import Run, TrainConfig
    from ssgd_analysis.training import seed_folders, train_seeds

    folders = seed_folders(out, range(given["seed"], given["seed"] + seeds))
    there = [run for run in map(Run, folders.values()) if resume and run.exists]
    finished = [run.folder for run in there if run.finished]
    if finished:
        left = f"{seeds - len(finished)} of {seeds} left" if len(finished) < seeds else "all"
        console.say(f"finished already: {', '.join(path.name for path in finished)} ({left})")
    known = vars(there[0].config()) if there else {}
    config = TrainConfig(**settings_of(known, given, *assignments))
    with console.Display() as progress:
        results = train_seeds(
            config, out, seeds=list(folders), jobs=jobs, resume=resume, progress=progress
        )
    for result in results.values():
        if isinstance(result, dict) and "tracking" in result:
            run = Run(Path(result["run"]))
            result["tracking"]["pictures"] = tracking_pictures(run, kept=run.folder in finished)
    return [(folder, results[seed]) for seed, folder in folders.items()]
