"""``ssgd-analyze train``."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    COUNT,
    computing,
    example,
    given,
    json_option,
    settings_options,
)

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.settings.training import TrainSettings

if TYPE_CHECKING:
    from ssgd_analysis.ranks import Ranks


@click.command(
    epilog=example(
        "ssgd-analyze train --method s-sgd --data digits --model mlp --set noise_scale=0.2 "
        "--epochs 20 --out runs/train"
    )
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the run.")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A setting of the method."
)
@click.option(
    "--optimizer-set",
    "optimizer_assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the base optimizer's own.",
)
@settings_options(TrainSettings, without=("seed", "device", "data_dir", "label"))
@click.option(
    "--batch-seeds",
    type=COUNT,
    metavar="N",
    help="Train N seeds at once, from the given one on, each into its own folder OUT/seed-S.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it stopped.")
@json_option
@computing
def command(
    out: Path,
    assignments: tuple[str, ...],
    optimizer_assignments: tuple[str, ...],
    batch_seeds: int | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train one model with one method.

    The folder --out gets config.json, history.jsonl (a line an epoch), final.safetensors and
    what --resume needs. With --resume the other options may be left out; they are the run's.
    With --track also tracking.jsonl (a line a measurement) and the picture tracking.png.
    Under torchrun each process takes its part of every minibatch.
    """
    from ssgd_analysis.ranks import launched

    chosen = given(options)
    with launched() as ranks:
        if batch_seeds is not None:
            if ranks.size > 1:
                raise InputError("--batch-seeds trains in one process, not under torchrun")
            both = (assignments, optimizer_assignments)
            _train_seeds(batch_seeds, out, chosen, both, resume, as_json)
            return
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
    from ssgd_analysis.runs import TrainConfig
    from ssgd_analysis.settings import read_assignments

    if assignments:
        chosen["settings"] = TrainConfig.parsed_settings(chosen["method"], list(assignments))
    if optimizer_assignments:
        chosen["optimizer_settings"] = read_assignments("--optimizer-set", optimizer_assignments)


def _train_seeds(
    count: int,
    out: Path,
    chosen: dict[str, Any],
    assignments: tuple[tuple[str, ...], tuple[str, ...]],
    resume: bool,
    as_json: bool,
) -> None:
    """``--batch-seeds``: the settings of a run that is there hold for all seeds."""
    from ssgd_analysis.cli.train_seeds import seed_folders, train_seeds

    from ssgd_analysis.runs import Run, TrainConfig

    folders = seed_folders(out, chosen["seed"], count)
    there = [run for run in map(Run, folders.values()) if resume and run.exists]
    chosen = _joined(vars(there[0].config()) if there else {}, chosen)
    _assign(chosen, *assignments)
    jobs = [(TrainConfig(**{**chosen, "seed": seed}), path) for seed, path in folders.items()]
    train_seeds(jobs, resume, as_json)


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
