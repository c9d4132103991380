"""How the command line talks: answers to stdout, progress and warnings to stderr."""

import contextlib
import json
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ssgd_analysis.files import jsonable
from ssgd_analysis.records import number

_answers: list[TextIO] = []


@contextlib.contextmanager
def answers_to(stream: TextIO) -> Iterator[None]:
    """Answers go to this stream, whatever ``sys.stdout`` is meanwhile."""
    _answers.append(stream)
    try:
        yield
    finally:
        _answers.pop()


def answer(text: str = "") -> None:
    """A line of the answer."""
    stream = _answers[-1] if _answers else sys.stdout
    stream.write(text + "\n")


def answer_text(text: str, width: int = 100) -> None:
    """A paragraph of the answer, in lines of at most this width."""
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        answer(line)


def answer_json(value: object) -> None:
    """The one JSON document; NaN and infinity become ``null``."""
    answer(json.dumps(jsonable(value), indent=1, allow_nan=False))


def answer_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table; numbers are already text."""
    table = _table(header, rows, title)
    stream = _answers[-1] if _answers else sys.stdout
    # as wide as it needs: a cut number is worse than a line that the terminal wraps
    Console(file=stream, width=400, highlight=False, markup=False).print(table)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """First column to the left, the others to the right."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def say(message: str) -> None:
    """A line about the work, to stderr."""
    sys.stderr.write(message + "\n")


class Display:
    """Progress on stderr: a live bar on a terminal, a line now and then elsewhere."""

    EVERY = 10.0  # seconds between lines where there is no terminal

    def __init__(self) -> None:
        self.live: Live | None = None
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.shown: Table | None = None
        self.label, self.total, self.done, self.spoke = "", 0, 0, time.monotonic()

    def __enter__(self) -> "Display":
        console = Console(stderr=True)
        if console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self.live = Live(get_renderable=self._now, console=console, transient=True)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def _now(self) -> RenderableType:
        """What a terminal shows: the table, if there is one, and the bar."""
        assert self.bar is not None
        return self.bar if self.shown is None else Group(self.shown, self.bar)

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a stage."""
        self.label, self.total, self.done = label, total or 0, 0
        self.shown = None
        if self.bar is not None:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.task = self.bar.add_task(self.label, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some more steps are done."""
        self.done += steps
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=steps, note=note)
        elif time.monotonic() - self.spoke > self.EVERY:
            self.spoke = time.monotonic()
            of = f"/{self.total}" if self.total else ""
            say(f"{self.label} {self.done}{of} {note}".rstrip())

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """How all parts of the work stand, above the bar; where there is no terminal, nothing."""
        if self.live is not None:
            self.shown = _table(header, rows)

    def say(self, message: str) -> None:
        """A line about the work, above the bar."""
        if self.live is not None:
            self.live.console.print(message, highlight=False, markup=False)
        else:
            say(message)

    def warn(self, message: str) -> None:
        """A warning line."""
        if self.live is not None:
            self.live.console.print(f"Warning: {message}", highlight=False, markup=False)
        else:
            say(f"Warning: {message}")


def answer_runs(runs: Iterable[tuple[Path, dict[str, Any]]]) -> None:
    """The table of trained runs: folder, and the last record of its history."""
    keys = ["epoch", "gradients", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    rows = [[str(folder), *checkpoint_row(final, keys)] for folder, final in runs]
    answer_table(["run", *keys], rows)


def checkpoint_row(values: dict[str, Any], keys: Sequence[str]) -> list[str]:
    """Some values of a record as table cells."""
    return [number(values.get(key)) for key in keys]
