"""Places of checkpoints in a landscape, and labels beside them that do not meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from ssgd_analysis.plots.style import SMALL, inches

GAP = 4.0  # from a mark to its label, points
SIDES = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.6), (0, -1.6), (1.4, 0), (-1.4, 0)]


@dataclass(frozen=True)
class Mark:
    """A place that is known exactly.

    Args:
        label: written beside it; empty: nothing.
        alpha: along the first axis.
        beta: along the second one, of a plane.
        loss: there, if it is known.
        accuracy: there, a fraction, if it is known.
    """

    label: str
    alpha: float
    beta: float | None = None
    loss: float | None = None
    accuracy: float | None = None


def outlined(ground: str) -> dict[str, Any]:
    """A look that is seen on every ground: a thin outline in the other colour."""
    return {"path_effects": [withStroke(linewidth=1.4, foreground=ground)]}


def label_places(
    panel: Axes, places: Sequence[tuple[str, float, float]], *, colour: str, ground: str
) -> None:
    """Write labels beside places, each on the side where it meets least.

    The layout of the figure must be done: what is on screen decides.

    Args:
        panel: with its limits set.
        places: (label, x, y), all that are marked; an empty label is only kept free.
        colour: of the letters.
        ground: of their outline.
    """
    scale = 72 / panel.figure.dpi
    points = [scale * panel.transData.transform((x, y)) for _, x, y in places]
    inside = panel.get_window_extent()
    frame = Bbox(scale * np.asarray(inside.get_points()))
    taken = [Bbox([point - 2, point + 2]) for point in points]
    for (label, x, y), point in zip(places, points, strict=True):
        if not label:
            continue
        size = np.array([72 * inches(label, SMALL), SMALL])
        boxes = [_beside(point, np.array(side), size) for side in SIDES]
        costs = [_cost(box, taken, frame) for box in boxes]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        panel.annotate(
            label,
            (x, y),
            boxes[best].p0 - point,
            textcoords="offset points",
            size=SMALL,
            color=colour,
            va="baseline",
            **outlined(ground),
        )


def _beside(point: np.ndarray, side: np.ndarray, size: np.ndarray) -> Bbox:
    """The box of a label on one side of a point, all in points of print."""
    middle = point + GAP * side + np.sign(side) * size / 2
    return Bbox([middle - size / 2, middle + size / 2])


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """The area that lies on other things, or outside of the panel."""
    common = [Bbox.intersection(box, other) for other in taken]
    covered = sum(own.width * own.height for own in common if own is not None)
    inside = Bbox.intersection(box, frame)
    seen = inside.width * inside.height if inside is not None else 0.0
    return covered + 5 * (box.width * box.height - seen)
