"""Coordinates of a landscape, and its values there."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ssgd_analysis.errors import InputError

LINE = 8  # points of a line that are computed at once: as many may be lost by a kill
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
        """The points in blocks that are computed, and stored, at once: indices (M, dims).

        A row of a plane (one alpha), or a part of a line.
        """
        indices = np.moveaxis(np.indices(self.done.shape), 0, -1)
        if self.done.ndim == 2:
            return list(indices)
        return [indices[start : start + LINE] for start in range(0, len(indices), LINE)]

    def coordinates(self, indices: np.ndarray) -> np.ndarray:
        """Coordinates (M, dims) of points (M, dims)."""
        return np.stack([axis[indices[:, i]] for i, axis in enumerate(self.axes)], axis=1)

    def index_of(self, coordinates: tuple[float, ...]) -> tuple[int, ...] | None:
        """The point at exactly these coordinates, or ``None``."""
        found = [
            np.flatnonzero(axis == at) for axis, at in zip(self.axes, coordinates, strict=True)
        ]
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
