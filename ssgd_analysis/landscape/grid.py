"""Coordinates of a landscape, and its values there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import write_atomically

LINE = 8  # points of a line that are computed at once: what a kill may lose
VALUES = ("loss", "accuracy", "test_loss", "test_accuracy")


@dataclass
class Grid:
    """Values over one or two coordinates; NaN where not computed, or not finite.

    Args:
        axes: coordinates, one array for each direction.
        values: name (of :data:`VALUES`) → shape (points,) or (points, points), first axis alpha;
            accuracy is NaN where the targets are no class labels.
        done: same shape, which points are computed.
    """

    axes: list[np.ndarray]
    values: dict[str, np.ndarray]
    done: np.ndarray

    @classmethod
    def empty(cls, axes: list[np.ndarray], *, test: bool = False) -> "Grid":
        """A grid with nothing computed.

        Args:
            axes: coordinates.
            test: whether there are values of the test split, too.
        """
        shape = tuple(len(axis) for axis in axes)
        names = VALUES if test else VALUES[:2]
        return cls(axes, {name: np.full(shape, np.nan) for name in names}, np.zeros(shape, bool))

    def blocks(self) -> list[np.ndarray]:
        """The points in the pieces that are computed, and kept, at once: indices (M, dims).

        A row of a plane (one alpha), or a part of a line.
        """
        indices = np.moveaxis(np.indices(self.done.shape), 0, -1)
        if self.done.ndim == 2:
            return list(indices)
        return [indices[start : start + LINE] for start in range(0, len(indices), LINE)]

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Coordinates (M, dims) of points (M, dims)."""
        return np.stack([axis[indices[:, i]] for i, axis in enumerate(self.axes)], axis=1)

    def index_of(self, place: tuple[float, ...]) -> tuple[int, ...] | None:
        """The point at exactly this place, or ``None``."""
        found = [np.flatnonzero(axis == at) for axis, at in zip(self.axes, place, strict=True)]
        return tuple(int(i[0]) for i in found) if all(len(i) for i in found) else None


def through(low: float, high: float, points: int, exact: Iterable[float] = ()) -> np.ndarray:
    """Nearly even coordinates from low to high, with some values exactly among them.

    Args:
        low: the first.
        high: the last.
        points: how many.
        exact: values from low to high that must be among them.

    Raises:
        InputError: too few points for them.
    """
    knots = sorted({low, high, *exact})
    if len(knots) > points:
        raise InputError(f"--points {points} should be at least {len(knots)}")
    lengths = np.diff(knots)
    counts = np.ones(len(lengths), dtype=int)
    for _ in range(points - 1 - len(lengths)):
        counts[np.argmax(lengths / counts)] += 1  # one more step where they are widest
    pieces = [
        np.linspace(a, b, count, endpoint=False)
        for a, b, count in zip(knots[:-1], knots[1:], counts, strict=True)
    ]
    return np.concatenate([*pieces, knots[-1:]])


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an ``.npz`` file, atomically.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)
