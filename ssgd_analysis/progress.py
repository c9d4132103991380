"""How long work reports its progress; the command line decides how that looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Receives the steps of a long piece of work."""

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a stage of ``total`` steps (``None``: not known beforehand)."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """``steps`` more are done; ``note`` is a short remark on the state."""

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of the state of all parts; it replaces the table before."""

    def say(self, message: str) -> None:
        """A line about the work."""

    def warn(self, message: str) -> None:
        """Something the user should know, that does not stop the work."""


class Silent:
    """Says nothing: the default of every library function."""

    def start(self, label: str, total: int | None = None) -> None:
        """Ignore."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Ignore."""

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Ignore."""

    def say(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Ignore."""


SILENT = Silent()


@dataclass(frozen=True)
class Prefixed:
    """The progress of one part of the work: every line and label begins with its name."""

    whole: Progress
    prefix: str

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a stage."""
        self.whole.start(self.prefix + label, total)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some more steps are done."""
        self.whole.advance(steps, note)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """How all parts of the work stand."""
        self.whole.table(header, rows)

    def say(self, message: str) -> None:
        """A line about the work."""
        self.whole.say(self.prefix + message)

    def warn(self, message: str) -> None:
        """A warning, which says itself what it is about."""
        self.whole.warn(message)
