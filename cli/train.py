"""``ssgd-analyze train``."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    COUNT,
    command_line,
    computing,
    example,
    given,
    json_option,
    settings_options,
)
from ssgd_analysis.cli.train_answers import answer_run, answer_seeds, draw_tracking
from ssgd_analysis.cli.train_settings import settings_of

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
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the method; repeatable.",
)
@click.option(
    "--optimizer-set",
    "optimizer_assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the base optimizer; repeatable.",
)
@settings_options(TrainSettings, without=("seed", "device", "data_dir", "label"))
@click.option(
    "--seeds",
    type=COUNT,
    metavar="N",
    help="Train N seeds, starting at --seed, each in its own folder OUT/seed-S.",
)
@click.option(
    "--jobs",
    type=COUNT,
    metavar="N",
    help="With --seeds: processes at once, with one thread each (default: one per core).",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out where it stopped.")
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
    **options: Any,
) -> None:
    """Train one model with one method.

    The folder --out receives config.json, history.jsonl (one line per epoch),
    final.safetensors, and the state that --resume needs. With --resume the other options may be
    left out: they are read from the run. --track adds tracking.jsonl (one line per measurement)
    and the picture tracking.png. --seeds N makes N such folders, OUT/seed-S, and --resume
    finishes those that are unfinished. Under torchrun each process computes its part of every
    minibatch.
    """
    from ssgd_analysis.ranks import launched

    chosen = given(options)
    both = (assignments, optimizer_assignments)
    with launched() as ranks:
        if seeds is not None:
            if ranks.size > 1:
                raise InputError("--seeds starts its own processes: run it without torchrun")
            with _interruptible(out, options["seed"], seeds, jobs):
                results = _train_seeds(out, seeds, jobs, chosen, both, resume)
            answer_seeds(results, as_json)
            return
        _check_single(out, jobs, resume)
        try:
            with _interruptible(out, options["seed"]):
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
        raise InputError("--jobs needs several runs: add --seeds N")
    several = list(out.glob("seed-*/config.json"))
    if resume and several and not (out / "config.json").exists():
        raise InputError(f"{out} holds the runs of {len(several)} seeds: add --seeds N")


@contextlib.contextmanager
def _interruptible(
    out: Path, seed: int, seeds: int | None = None, jobs: int | None = None
) -> Iterator[None]:
    """After Ctrl-C, say how to continue.

    Raises:
        WorkError: the work was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not any((folder / "config.json").is_file() for folder in (out, *out.glob("seed-*"))):
            raise WorkError("interrupted before anything was saved: start it again") from None
        several = {"seed": seed, "seeds": seeds, "jobs": jobs} if seeds else {}
        line = command_line("train", [], {"resume": True, **several, "out": out})
        raise WorkError(f"interrupted; finished epochs are saved, continue with: {line}") from None


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
    stored = vars(ranks.once(run.config)) if resume and ranks.once(lambda: run.exists) else {}
    chosen = settings_of(stored, given, *assignments)
    chosen["device"] = own_device(chosen["device"], ranks)
    config = TrainConfig(**chosen)
    finished = ranks.once(lambda: run.exists and run.finished)
    with console.Display() if ranks.first else contextlib.nullcontext(SILENT) as progress:
        try:
            result = train(config, out, resume=resume, progress=progress, ranks=ranks)
        except WorkError:  # the curvature before a divergence is worth seeing
            if ranks.first:
                draw_tracking(run)
            raise
    if "tracking" in result and ranks.first:
        result["tracking"]["pictures"] = draw_tracking(run, reuse=finished)
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
    begun = [run for run in map(Run, folders.values()) if resume and run.exists]
    finished = [run.folder for run in begun if run.finished]
    if finished:
        left = f"{seeds - len(finished)} of {seeds} left" if len(finished) < seeds else "all"
        console.say(f"finished already: {', '.join(path.name for path in finished)} ({left})")
    stored = vars(begun[0].config()) if begun else {}
    config = TrainConfig(**settings_of(stored, given, *assignments))
    with console.Display() as progress:
        results = train_seeds(
            config, out, seeds=list(folders), jobs=jobs, resume=resume, progress=progress
        )
    for result in results.values():
        if isinstance(result, dict) and "tracking" in result:
            run = Run(Path(result["run"]))
            result["tracking"]["pictures"] = draw_tracking(run, reuse=run.folder in finished)
    return [(folder, results[seed]) for seed, folder in folders.items()]
