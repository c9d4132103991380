"""The progress of a study as a table of arms × settings."""

import time
from collections.abc import Sequence
from typing import Any

from ssgd_analysis.progress import Progress
from ssgd_analysis.runs import Run
from ssgd_analysis.studies.cells import Cell


class Board:
    """Counts runs that are done, running or failed, and averages their accuracy.

    Args:
        progress: shows it.
        label: of the stage.
        cells: its runs.
        metric: of the history; its mean is shown.
        jobs: processes at once, to estimate the remaining time.
    """

    def __init__(
        self, progress: Progress, label: str, cells: Sequence[Cell], metric: str, jobs: int
    ) -> None:
        self.progress, self.label, self.metric, self.jobs = progress, label, metric, jobs
        self.cells = list(cells)
        self.done: dict[str, dict[str, Any]] = {}
        self.began = time.monotonic()
        progress.start(label, len(self.cells))
        self.show()

    def __call__(self, cell: Cell, done: dict[str, Any]) -> None:
        """One run is done."""
        self.done[str(cell.folder)] = done
        if done["error"]:
            self.progress.warn(f"{cell.folder}: {done['error']}")
        self.progress.advance(1, f"{cell.setting} {cell.arm}{self._left()}".strip())
        self.show()

    def show(self) -> None:
        """The table as it is now."""
        settings = list(dict.fromkeys(cell.setting for cell in self.cells))
        arms = list(dict.fromkeys(cell.arm for cell in self.cells))
        rows = [[arm, *(self._cell(setting, arm) for setting in settings)] for arm in arms]
        self.progress.table([self.label, *settings], rows)

    def _cell(self, setting: str, arm: str) -> str:
        """As in ``7/10 ▸1 ✗1 95.1%``."""
        own = [c for c in self.cells if (c.setting, c.arm) == (setting, arm)]
        done = [self.done[str(c.folder)] for c in own if str(c.folder) in self.done]
        records = [one["record"] for one in done if not one["error"]]
        running = sum(
            str(c.folder) not in self.done and Run(c.folder).exists and not Run(c.folder).finished
            for c in own
        )
        failed = len(done) - len(records)
        values = [v for r in records if (v := r.get(self.metric)) is not None]
        text = f"{len(records)}/{len(own)}"
        text += f" ▸{running}" if running else ""
        text += f" ✗{failed}" if failed else ""
        return text + (f" {100 * sum(values) / len(values):.1f}%" if values else "")

    def _left(self) -> str:
        """The time that is left, from the runs that were trained in this session."""
        made = [one["seconds"] for one in self.done.values() if one["seconds"] > 0.05]
        left = len(self.cells) - len(self.done)
        if not made or not left:
            return ""
        seconds = left * sum(made) / len(made) / min(self.jobs, left)
        return f", about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """As in ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
