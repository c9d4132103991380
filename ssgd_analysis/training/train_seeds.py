"""One configuration trained with several seeds, a run folder for each."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.parallel import default_jobs, parallel
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.runs.config import TrainConfig
from ssgd_analysis.runs.folder import Run, is_done
from ssgd_analysis.training.loop import train

LOOK_SECONDS = 1.0  # between two counts of the finished epochs


def seed_folders(folder: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """The run folder of each seed, ``folder/seed-S``.

    Example:
        >>> seed_folders(Path("runs"), [4])[4].name
        'seed-4'
    """
    return {seed: folder / f"seed-{seed}" for seed in seeds}


def train_seeds(
    config: TrainConfig,
    folder: Path,
    *,
    seeds: Sequence[int],
    jobs: int | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> dict[int, dict[str, Any] | InputError | WorkError]:
    """Train one configuration with several seeds, in processes of one thread each.

    Every run equals that of :func:`train` with one thread. A run that fails does not stop
    the others.

    Args:
        config: what to train; its own seed is replaced by each of ``seeds``.
        folder: gets a run folder ``seed-S`` for each seed.
        seeds: distinct numbers.
        jobs: the number of processes at once; default: one for each core, on a GPU one in all.
        resume: leave finished runs alone, and continue the unfinished ones where they stopped.
        progress: is advanced by the epochs that are finished.

    Returns:
        For each seed the result of :func:`train`, or the error that ended its run.

    Raises:
        InputError: before anything is trained: a folder that already holds a run, without
            ``resume``, or a run with other settings.

    Example:
        >>> config = TrainConfig(method="sgd", data="digits", model="mlp", epochs=1)
        >>> results = train_seeds(config, Path("runs"), seeds=[0, 1], jobs=1)
        >>> [(seed, result["run"]) for seed, result in results.items()]
        [(0, 'runs/seed-0'), (1, 'runs/seed-1')]
    """
    folders = seed_folders(folder, seeds)
    configs = {seed: dataclasses.replace(config, seed=seed) for seed in seeds}
    if Run(folder).exists:
        raise InputError(f"{folder} already holds a run: name another folder")
    for seed, own in folders.items():
        is_done(Run(own), configs[seed], resume)
    calls = [(_train_one, (configs[seed], own, resume)) for seed, own in folders.items()]
    results: dict[int, dict[str, Any] | InputError | WorkError] = {}
    with _epochs_shown(progress, folders, config.epochs):
        with suppress(BrokenExecutor):  # one killed process ends all the others
            results.update(parallel(calls, jobs or default_jobs(config.device)))
        for seed in folders:
            results.setdefault(seed, WorkError("its process was killed: continue it with --resume"))
            if isinstance(results[seed], Exception):
                progress.warn(f"{folders[seed]}: {results[seed]}")
    return {seed: results[seed] for seed in folders}


def _train_one(
    config: TrainConfig, folder: Path, resume: bool
) -> tuple[int, dict[str, Any] | InputError | WorkError]:
    """The seed and its result; an error becomes one of the two kinds, which can be pickled."""
    try:
        return config.seed, train(config, folder, resume=resume)
    except InputError as error:
        return config.seed, InputError(str(error))
    except WorkError as error:
        return config.seed, WorkError(str(error))
    except Exception as error:  # a user's model may raise anything
        return config.seed, WorkError(f"{type(error).__name__}: {error}")


@contextmanager
def _epochs_shown(progress: Progress, folders: Mapping[int, Path], epochs: int) -> Iterator[None]:
    """Advance ``progress`` by the epochs that the runs, which other processes make, write down."""
    runs = [Run(folder) for folder in folders.values()]
    progress.start(f"training {len(runs)} seeds", epochs * len(runs))
    over, shown = threading.Event(), 0

    def look() -> None:
        nonlocal shown
        counts = [epochs if run.finished else run.epochs_done() for run in runs]
        note = f"{sum(run.finished for run in runs)}/{len(runs)} runs finished"
        progress.advance(max(0, sum(counts) - shown), note)
        shown = max(shown, sum(counts))

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            with suppress(OSError):  # a file may be missing for a moment
                look()

    look()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        with suppress(OSError):
            look()
