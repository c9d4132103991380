"""Loss and accuracy over planes, all panels of a quantity on one colour scale."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssgd_analysis.plots.marks import Mark, label_points, outlined
from ssgd_analysis.plots.scale import Scale, distinct, loss_scale, plain_scale
from ssgd_analysis.plots.style import (
    DOUBLE,
    OwnAxes,
    fitting_names,
    in_lines,
    page_width,
    panels,
    small_print,
    styled,
)

LOSSES, ACCURACIES = "viridis", "cividis_r"  # dark is good in both


@dataclass(frozen=True)
class Plane:
    """Values over a grid. NaN: not finite there.

    Args:
        alpha: shape (A,).
        beta: shape (B,).
        values: shape (A, B).
        marks: exact positions of checkpoints.
        path: (alpha, beta) of the checkpoints of a run, from start to end, shape (K, 2).
    """

    alpha: np.ndarray
    beta: np.ndarray
    values: np.ndarray
    marks: Sequence[Mark] = ()
    path: np.ndarray | None = None


@styled
def loss_contours(
    planes: Mapping[str, Plane],
    *,
    accuracies: Mapping[str, Plane] | None = None,
    columns: int = 3,
    xlabel: str = "α",
    ylabel: str = "β",
    label: str = "train loss",
    accuracy_label: str = "train accuracy (%)",
    notes: Sequence[str] = (),
    axes: OwnAxes = None,
) -> Figure:
    """One filled contour plot for each plane: losses, below them accuracies.

    Levels share one logarithmic scale of the rise above the lowest loss of all planes, so that
    the heights of minima differ to the eye. Its range: see
    :func:`ssgd_analysis.plots.scale.loss_scale`; hatched is what is above it, cross-hatched what
    is not finite. In a user's own axes lines carry their values
    where otherwise a colour bar stands beside.

    Args:
        planes: title → losses.
        accuracies: title → accuracies in percent, on a scale of their own.
        columns: most panels in a row.
        xlabel: what alpha is.
        ylabel: what beta is.
        label: what the losses are.
        accuracy_label: what the accuracies are.
        notes: lines of small print.
        axes: the user's own: one a plane, then one for each plane of accuracies.
    """
    accuracies = accuracies or {}
    at_marks = [mark.loss for plane in planes.values() for mark in plane.marks]
    scale = loss_scale([plane.values for plane in planes.values()], at_marks).of_rises()
    other = plain_scale([plane.values for plane in accuracies.values()] or [np.zeros(0)], top=100)
    groups = [(planes, scale, LOSSES, label)]
    groups += [(accuracies, other, ACCURACIES, accuracy_label)] * bool(accuracies)
    columns = min(columns, max(1, int(page_width(DOUBLE) / 1.6)))
    wide, used = _positions([len(own) for own, *_ in groups], columns)
    # the colour bar takes the same width from any number of panels
    width = _panel_width(wide)
    height = min(1.95, 0.95 * width) - 0.5 * width * _flat(planes.values())
    figure, shown = panels(
        max(used) // wide + 1,
        wide,
        used=used,
        width=width,
        height=height,
        sharex=True,
        sharey=True,
        axes=axes,
    )
    rest = list(shown)
    for own, own_scale, colours, text in groups:
        mine, rest = rest[: len(own)], rest[len(own) :]
        room = title_room(wide) if axes is None else _width(mine)
        names = fitting_names(own, room)
        for panel, name, plane in zip(mine, names, own.values(), strict=True):
            _fill(panel, plane, own_scale, colours, named=axes is not None)
            panel.set_title(name)
        if axes is None:
            _bar(figure, mine, own_scale, colours, text)
    for panel, position in zip(shown, used, strict=True):
        if axes is not None or position + wide not in used:
            panel.set_xlabel(in_lines(xlabel, 0.85 * width))
            panel.tick_params(labelbottom=True)
        if axes is not None or position % wide == 0:
            panel.set_ylabel(in_lines(ylabel, 0.85 * height))
    small_print(figure, [*notes, "; ".join(scale.notes("loss"))], axes)
    if axes is None:
        figure.draw_without_rendering()  # the layout
    for panel, plane in zip(shown, (p for own, *_ in groups for p in own.values()), strict=True):
        _labels(panel, plane)
    return figure


def title_room(columns: int) -> float:
    """Inches for the title of one of several panels in a row, beside labels and colour bar."""
    return 0.95 * (_panel_width(columns) - 1.3 / columns) - 0.05


def _panel_width(columns: int) -> float:
    return min(2.0 + 0.6 / columns, page_width(DOUBLE) / columns)


def _width(own: Sequence[Axes]) -> float:
    """Inches of the narrowest of a user's own axes."""
    return min(float(a.get_window_extent().width) / a.figure.figure.dpi for a in own)


def _flat(planes: Iterable[Plane]) -> float:
    """By which share, 0 to 0.5, panels are lower than wide; colour bars have their height."""
    flat = [1 - _side(plane.beta) / _side(plane.alpha) for plane in planes if _true_shape(plane)]
    return max(0.0, min([0.5, *flat])) if flat else 0.0


def _side(values: np.ndarray) -> float:
    return float(values[-1] - values[0])


def _true_shape(plane: Plane) -> bool:
    """Whether a unit is as long on both axes: unless the panel would be a thin strip."""
    sides = _side(plane.alpha), _side(plane.beta)
    return max(sides) < 3 * min(sides)


def _positions(counts: Sequence[int], columns: int) -> tuple[int, list[int]]:
    """Panels in a row, and which are used: each quantity begins a row unless all fit in one."""
    if sum(counts) <= min(columns, 2) and len(counts) > 1:
        return sum(counts), list(range(sum(counts)))
    rows = math.ceil(max(counts) / columns)
    wide = math.ceil(max(counts) / rows)  # four are two and two, not three and one
    blocks = [range(block * rows * wide, block * rows * wide + n) for block, n in enumerate(counts)]
    return wide, [position for block in blocks for position in block]


def _fill(
    panel: Axes,
    plane: Plane,
    scale: Scale,
    colours: str,
    named: bool,
) -> None:
    alpha, beta = plane.alpha, plane.beta
    values = np.ma.masked_invalid(plane.values.T.astype(float))
    if values.mask.any():  # visible where nothing covers it
        look: Any = {"fill": False, "lw": 0, "ec": "#999999", "hatch": "xxxxx", "zorder": 0}
        panel.add_patch(Rectangle((alpha[0], beta[0]), _side(alpha), _side(beta), **look))
    if values.count():
        # between points the logarithm is linear where the scale is logarithmic
        values, levels, low, high = (
            scale.placed(own) for own in (values, scale.levels(), scale.low, scale.high)
        )
        clipped = values.clip(max=high)
        norm = mpl.colors.BoundaryNorm(levels, 256)
        panel.contourf(alpha, beta, clipped, levels=levels, norm=norm, cmap=colours)
        inside = (levels > clipped.min()) & (levels < clipped.max())
        inside[[0, -1]] = False
        if inside.any():
            inner = levels[inside]
            thin: Any = {"colors": "white", "linewidths": 0.3, "linestyles": "solid"}
            lines = panel.contour(alpha, beta, clipped, levels=inner, **thin)
            if named:
                texts = dict(zip(inner, distinct(scale.levels()[inside]), strict=True))
                panel.clabel(lines, inner[::3], fontsize=6, fmt=texts)
        if values.max() > high:
            # the half next to a point above the range is hatched, however high that point is
            near = values.clip(max=2 * high - low)
            look = {"colors": ["#e4e4e4"], "hatches": ["////"]}
            panel.contourf(alpha, beta, near, levels=[high, 3 * high - 2 * low], **look)
    panel.set(xlim=(alpha[0], alpha[-1]), ylim=(beta[0], beta[-1]))
    panel.set_aspect("equal" if _true_shape(plane) else "auto")
    if plane.path is not None:
        panel.plot(*plane.path.T, "-o", color="white", lw=0.8, ms=1.8, **outlined("black"))
        panel.plot(*plane.path[0], "o", color="black", mec="white", ms=4, mew=0.7)
        panel.plot(*plane.path[-1], "*", color="black", mec="white", ms=7, mew=0.5)
    for mark in plane.marks:
        panel.plot([mark.alpha], [mark.beta or 0.0], "+", color="white", ms=6, **outlined("black"))


def _bar(figure: Figure, shown: Sequence[Axes], scale: Scale, colours: str, text: str) -> None:
    levels = scale.levels()
    filled = ScalarMappable(mpl.colors.BoundaryNorm(levels, 256), colours)
    ticks = levels[:: max(1, round(len(levels) / 5))]
    bar = figure.colorbar(filled, ax=shown, shrink=0.9, ticks=ticks, label=text)
    bar.ax.set_yticklabels(distinct(ticks))
    bar.outline.set_linewidth(0.4)


def _labels(panel: Axes, plane: Plane) -> None:
    labelled = [(mark.label, mark.alpha, float(mark.beta or 0)) for mark in plane.marks]
    if plane.path is not None:
        labelled += [("start", *plane.path[0]), ("end", *plane.path[-1])]
    curves = [] if plane.path is None else [np.asarray(plane.path)]
    label_points(panel, labelled, colour="white", ground="black", curves=curves)
