"""The runs of a study: where they lie, what is trained, bundles that share a process."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssgd_analysis.compare import MeasureSettings
from ssgd_analysis.compare.measurements import measure_all
from ssgd_analysis.errors import WorkError
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.studies.parallel import parallel
from ssgd_analysis.training import train
from ssgd_analysis.training.together import train_together


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        setting: its condition.
        arm: label of its arm.
        folder: of the run.
        config: what is trained.
        metrics: measured at the final weights.
        trial: number of the tuning trial; ``None``: a final run.
    """

    setting: str
    arm: str
    folder: Path
    config: TrainConfig
    metrics: tuple[str, ...] = ()
    trial: int | None = None


def slug(text: str) -> str:
    """A name as part of a path: "SGD 2×" becomes "sgd-2x"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("×", "x")).strip("-") or "all"


def run_cells(
    cells: Sequence[Cell],
    *,
    jobs: int,
    bundle: int,
    on_done: Callable[[Cell, dict[str, Any]], None] = lambda cell, done: None,
) -> dict[str, str]:
    """Train and measure; what is done already is skipped.

    Args:
        cells: the runs.
        jobs: processes at once.
        bundle: runs of one arm and setting that a process trains together.
        on_done: told of each run: its ``error``, its last history ``record`` and the ``seconds``
            that its training and measuring took now.

    Returns:
        Folder → why its run failed.
    """
    by_folder = {str(cell.folder): cell for cell in cells}
    calls = [
        (
            train_bundle,
            ([(cell.config, cell.folder) for cell in members], members[0].metrics),
        )
        for members in _bundles(cells, bundle)
    ]
    failures = {}
    for finished in parallel(calls, jobs):
        for done in finished:
            if done["error"]:
                failures[done["folder"]] = done["error"]
            on_done(by_folder[done["folder"]], done)
    return failures


def _bundles(cells: Iterable[Cell], size: int) -> list[list[Cell]]:
    """Cells of one arm and setting, so many together, in the order of their first ones."""
    waiting: dict[tuple[str, str], list[list[Cell]]] = {}
    found = []
    for cell in cells:
        own = waiting.setdefault((cell.setting, cell.arm), [])
        if not own or len(own[-1]) >= size:
            own.append([])
            found.append(own[-1])
        own[-1].append(cell)
    return found


def train_bundle(
    jobs: Sequence[tuple[TrainConfig, Path]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Some runs and their metrics; a run that fails is a result, not the end of the study."""
    began = time.monotonic()
    trained = _trained(jobs)
    share = (time.monotonic() - began) / len(jobs)
    results = []
    for (config, folder), outcome in zip(jobs, trained, strict=True):
        began = time.monotonic()
        if not isinstance(outcome, Exception) and metrics:
            outcome = _tried(
                measure_all, Run(folder), metrics, MeasureSettings(device=config.device)
            )
        failed = isinstance(outcome, Exception)
        results.append(
            {
                "folder": str(folder),
                "error": _why(outcome) if isinstance(outcome, Exception) else None,
                "record": None if failed else Run(folder).history()[-1],
                "seconds": share + time.monotonic() - began,
            }
        )
    return results


def _trained(jobs: Sequence[tuple[TrainConfig, Path]]) -> Sequence[Any]:
    """Each run's result, or the exception that ended it."""
    if len(jobs) == 1:
        config, folder = jobs[0]
        return [_tried(train, config, folder, resume=True)]
    return train_together(jobs, resume=True)


def _tried(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A function's result, or its exception."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        return error


def _why(error: Exception) -> str:
    kind = "" if isinstance(error, WorkError) else f"{type(error).__name__}: "
    return f"{kind}{error}"
