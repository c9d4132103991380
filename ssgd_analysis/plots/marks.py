"""Marks of checkpoints in a landscape, and labels beside them that do not meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from ssgd_analysis.plots.style import SMALL, inches

GAP = 4.0  # from a mark to its label, points
SIDES = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.6), (0, -1.6), (1.4, 0), (-1.4, 0)]


@dataclass(frozen=True)
class Mark:
    """A point whose coordinates and values are exact.

    Args:
        label: written beside it; empty: nothing.
        alpha: along the first axis.
        beta: along the second one, of a plane.
        loss: at the point, or ``None``.
        accuracy: at the point, a fraction, or ``None``.
    """

    label: str
    alpha: float
    beta: float | None = None
    loss: float | None = None
    accuracy: float | None = None


def outlined(ground: str) -> dict[str, Any]:
    """A style that is visible on every ground: a thin outline in the other colour."""
    return {"path_effects": [withStroke(linewidth=1.4, foreground=ground)]}


def label_points(
    panel: Axes,
    labelled: Sequence[tuple[str, float, float]],
    *,
    colour: str,
    ground: str,
    curves: Sequence[np.ndarray] = (),
) -> None:
    """Write labels beside points, each on the side where it covers least.

    The layout of the figure must be done, since it decides where the points are.

    Args:
        panel: with its limits set.
        labelled: (label, x, y) of all marked points; one with an empty label stays uncovered.
        colour: of the letters.
        ground: of their outline.
        curves: lines to keep free, each of shape (K, 2).
    """
    scale = 72 / panel.figure.dpi
    points = [scale * panel.transData.transform((x, y)) for _, x, y in labelled]
    inside = panel.get_window_extent()
    frame = scale * np.asarray(inside.get_points())
    taken = [np.array([point - 2, point + 2]) for point in points]
    for curve in curves:
        dense = _dense(scale * panel.transData.transform(curve))
        taken += [np.array([point - 1, point + 1]) for point in dense]
    for index, ((label, x, y), point) in enumerate(zip(labelled, points, strict=True)):
        if not label:
            continue
        size = np.array([72 * inches(label, SMALL), SMALL])
        others = np.array(points[:index] + points[index + 1 :]).reshape(-1, 2)
        boxes = [_beside(point, np.array(side), size) for side in SIDES]
        costs = [_cost(box, point, others, np.array(taken), frame) for box in boxes]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        panel.annotate(
            label,
            (x, y),
            boxes[best][0] - point,
            textcoords="offset points",
            size=SMALL,
            color=colour,
            va="baseline",
            **outlined(ground),
        )


def _dense(curve: np.ndarray) -> np.ndarray:
    """Points at most 2 apart on a line through points, all in points of print."""
    curve = curve[np.isfinite(curve).all(axis=1)]
    if len(curve) < 2:
        return curve
    steps = np.abs(np.diff(curve, axis=0)).sum(axis=1)
    lengths = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0, lengths[-1], 2 + min(2000, int(lengths[-1] / 2)))
    return np.stack([np.interp(wanted, lengths, part) for part in curve.T], axis=1)


def _beside(point: np.ndarray, side: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Lower and upper corner of a label on one side of a point, all in points of print."""
    middle = point + GAP * side + np.sign(side) * size / 2
    return np.array([middle - size / 2, middle + size / 2])


def _cost(
    box: np.ndarray, own: np.ndarray, others: np.ndarray, taken: np.ndarray, frame: np.ndarray
) -> float:
    """The area on other things or outside of the panel, and more if another mark is nearer."""
    covered = _common(box, taken).sum()
    outside = np.prod(box[1] - box[0]) - _common(box, frame[None])[0]
    lost = _distances(box, own[None])[0] - _distances(box, others)
    return float(covered + 5 * outside + 100 * np.maximum(0, lost).sum())


def _common(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The area that a box shares with each of several."""
    sides = np.minimum(box[1], boxes[:, 1]) - np.maximum(box[0], boxes[:, 0])
    return np.asarray(np.prod(np.maximum(0, sides), axis=1))


def _distances(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From a box to each of several points; 0 inside it."""
    apart = np.maximum(0, np.maximum(box[0] - points, points - box[1]))
    return np.asarray(np.hypot(*apart.T))
