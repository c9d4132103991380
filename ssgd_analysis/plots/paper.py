"""Pictures that are read at the width of a paper's column."""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from ssgd_analysis.plots.style import STYLE, short_names

COLUMN, DOUBLE = 3.3, 6.9  # inches
LETTER = 0.06  # width of a letter at 7 points, inches, on average
LINE = 0.135  # height of a line of text with its gap, inches

# decorates every function that makes such a figure
compact = mpl.rc_context(
    {
        **STYLE,
        "font.size": 7,
        "axes.titlesize": 7,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "legend.fontsize": 6.5,
    }
)


def inches(text: str) -> float:
    """Width of a text at 7 points."""
    return TextPath((0, 0), text, size=7).get_extents().width / 72 if text.strip() else 0.0


def fitting(names: Iterable[str], room: float) -> list[str]:
    """Names that fit into a room in inches: without the words that all share, cut if need be."""
    words = [name.split(" ") for name in names]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    kept = [[word for word in own if word not in shared] for own in words]
    names = [" ".join(own) for own in (kept if all(kept) else words)]
    return short_names(names, max(8, int(room / LETTER)))


def grid(
    count: int, *, width: float, panel: float, height: float, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of a given width with as many panels in a row as fit.

    Args:
        count: panels.
        width: of the figure, inches.
        panel: least width of a panel, inches.
        height: of a panel, inches.
        options: ``sharex``, ``sharey``.

    Returns:
        The figure and its ``count`` axes, row by row.
    """
    columns = max(1, min(count, int(width / panel)))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def legend(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    """One legend below all panels; the figure grows by its height."""
    columns = int((figure.get_figwidth() - 0.1) / (0.45 + max(map(inches, labels))))
    columns = max(1, min(len(labels), columns))
    figure.set_figheight(figure.get_figheight() + LINE * math.ceil(len(labels) / columns) + 0.1)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        handletextpad=0.4,
        handlelength=1.4,
        columnspacing=1.0,
        borderpad=0.1,
    )
