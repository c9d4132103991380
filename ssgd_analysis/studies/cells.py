"""The runs of a study: where they lie, and what is trained."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssgd_analysis.comparison import MeasurementSettings, measure_run
from ssgd_analysis.errors import WorkError
from ssgd_analysis.parallel import parallel
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.training import train


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
    on_done: Callable[[Cell, dict[str, Any]], None] = lambda cell, done: None,
) -> dict[str, str]:
    """Train and measure; what is done already is skipped.

    Args:
        cells: the runs.
        jobs: processes at once.
        on_done: is called with each run: its ``error``, its last history ``record`` and the
            ``seconds`` that its training and measuring took now.

    Returns:
        Folder → why its run failed.
    """
    by_folder = {str(cell.folder): cell for cell in cells}
    calls = [(_train_and_measure, (cell.config, cell.folder, cell.metrics)) for cell in cells]
    failures = {}
    for done in parallel(calls, jobs):
        if done["error"]:
            failures[done["folder"]] = done["error"]
        on_done(by_folder[done["folder"]], done)
    return failures


def _train_and_measure(config: TrainConfig, folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """One run and its metrics; a run that fails is a result, not the end of the study."""
    began = time.monotonic()
    record, why = None, None
    try:
        train(config, folder, resume=True)
        if metrics:
            measure_run(Run(folder), metrics, MeasurementSettings(device=config.device))
        record = Run(folder).history()[-1]
    except Exception as error:
        kind = "" if isinstance(error, WorkError) else f"{type(error).__name__}: "
        why = f"{kind}{error}"
    seconds = time.monotonic() - began
    return {"folder": str(folder), "error": why, "record": record, "seconds": seconds}
