"""What every record of the library can do: be read, drawn, tabulated and saved."""

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError

MAX_ROWS = 20  # of a table in a notebook or a terminal
MAX_WIDTH = 100  # characters of a line in a terminal


class Record(ABC):
    """The result of one command, in memory.

    A subclass holds the JSON document that its command writes, says what its table is, draws
    itself and writes its files; the rest follows from these.
    """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The document that the command prints with ``--json``: plain values, finite numbers."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The record as a table: one dict a row, the same keys in all."""

    def overview(self) -> list[dict[str, Any]]:
        """The table that a terminal or a notebook shows: the rows, or less where they are wide."""
        return self.rows()

    @abstractmethod
    def plot(self, ax: Any = None) -> Any:
        """Draw the record's main picture.

        Args:
            ax: matplotlib axes to draw into; ``None``: a new figure.

        Returns:
            The axes.
        """

    @abstractmethod
    def save(self, folder: Path | str) -> list[Path]:
        """Write the record as its command does: JSON, arrays, tables and pictures.

        Returns:
            The files written.

        Raises:
            WorkError: the disk is full or the folder not writable.
        """

    def to_frame(self) -> Any:
        """The table as a ``pandas.DataFrame``.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_frame() needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        rows = self.overview()
        header, cells = _cells(rows)
        widths = _widths([header, *cells])
        lines = ["  ".join(map(_fitted, row, widths)).rstrip() for row in (header, *cells)]
        return "\n".join([type(self).__name__, *lines, *_left_out(rows)])

    def _repr_html_(self) -> str:
        rows = self.overview()
        header, cells = _cells(rows)
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in cells
        )
        note = "".join(f"<p>{html.escape(line)}</p>" for line in _left_out(rows))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; ``–`` where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def _cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the first rows, as text."""
    header = list(rows[0]) if rows else []
    return header, [[_text(row[key]) for key in header] for row in rows[:MAX_ROWS]]


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    """The width of every column; the widest give way until a line fits."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > MAX_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _fitted(cell: str, width: int) -> str:
    """A cell filled up, or cut, to a width."""
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"


def _text(value: Any) -> str:
    return number(value) if value is None or isinstance(value, float) else str(value)


def _left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    more = len(rows) - MAX_ROWS
    return [f"… and {more} more rows: see to_frame()"] if more > 0 else []
