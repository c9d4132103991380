"""Names that fit into a column of a paper, and panels side by side in it."""

import math
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssgd_analysis.plots.style import OwnAxes, page_width, panels, short_names

LETTER = 0.06  # width of a letter at 7 points, inches, on average


def fitting(names: Iterable[str], room: float) -> list[str]:
    """Names that fit into a room in inches: without the words that all share, cut if need be."""
    words = [name.split(" ") for name in names]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    distinct = [[word for word in own if word not in shared] for own in words]
    names = [" ".join(own) for own in (distinct if all(distinct) else words)]
    return short_names(names, max(8, int(room / LETTER)))


def grid(
    count: int,
    *,
    width: float,
    panel: float,
    height: float,
    axes: OwnAxes = None,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure of a given width with as many panels in a row as fit, or the user's own axes.

    Args:
        count: panels.
        width: of the figure, inches.
        panel: least width of a panel, inches.
        height: of a panel, inches.
        axes: the user's own, ``count`` of them.
        options: ``sharex``, ``sharey``.

    Returns:
        The figure and its ``count`` axes, row by row.
    """
    width = page_width(width)
    columns = max(1, min(count, int(width / panel)))
    rows = math.ceil(count / columns)
    return panels(
        rows,
        columns,
        used=range(count),
        width=width / columns,
        height=height,
        axes=axes,
        **options,
    )
