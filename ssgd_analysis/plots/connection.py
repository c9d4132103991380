"""Loss and accuracy along paths from one checkpoint to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssgd_analysis.plots.style import (
    DOUBLE,
    OwnAxes,
    colour,
    legend,
    marker,
    page_width,
    panels,
    small_print,
    styled,
)

DASHES = ("-", "--", "-.", ":")  # a line on top of another one leaves it visible
WIDE = 20.0  # the losses' largest over their smallest: then the axis is logarithmic


@dataclass(frozen=True)
class Walk:
    """One path on one split.

    Args:
        t: shape (points,), from 0 to 1.
        loss: same shape; what is not finite is a gap.
        accuracy: same shape, fractions; NaN without class labels.
        top: the t of the barrier, marked if it is inside (0, 1).
    """

    t: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    top: float = 0.0


@styled
def connection_figure(
    splits: Mapping[str, Mapping[str, Walk]],
    *,
    ends: tuple[str, str] = ("first", "second"),
    notes: Sequence[str] = (),
    width: float = DOUBLE,
    axes: OwnAxes = None,
) -> Figure:
    """One column a split, loss above accuracy; one look a path, a mark at its barrier.

    Args:
        splits: split → path → what it is like.
        ends: what is at t = 0 and at t = 1.
        notes: lines of small print.
        width: of the figure, inches.
        axes: the user's own: one a split, then again one a split if there are accuracies.
    """
    walks = [walk for own in splits.values() for walk in own.values()]
    names = list(dict.fromkeys(name for own in splits.values() for name in own))
    columns, width = len(splits), page_width(width)
    rows = 1 + any(np.isfinite(walk.accuracy).any() for walk in walks)
    figure, shown = panels(
        rows, columns, width=width / columns, height=1.9, sharex="col", sharey="row", axes=axes
    )
    finite = np.concatenate([walk.loss[np.isfinite(walk.loss)] for walk in walks] or [[]])
    log = finite.size > 0 and finite.min() > 0 and finite.max() > WIDE * finite.min()
    for panel, (split, own) in zip(shown, splits.items(), strict=False):
        panel.set_title(split)
        if log:
            panel.set_yscale("log")
        for name, walk in own.items():
            _draw(panel, walk, walk.loss, names.index(name))
    for panel, own in zip(shown[columns:], splits.values(), strict=False):
        for name, walk in own.items():
            _draw(panel, walk, 100 * walk.accuracy, names.index(name))
    for panel in shown[-columns:]:
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        panel.set_xlabel(f"t (0: {ends[0]}, 1: {ends[1]})")
    for panel, text in zip(shown[::columns], ("loss", "accuracy (%)"), strict=False):
        panel.set_ylabel(text)
    handles = [Line2D([], [], marker=marker(i), ms=3, **_look(i)) for i in range(len(names))]
    legend(figure, handles, names, axes)
    small_print(
        figure, [*notes, "mark: where the loss is highest above the line between its ends"], axes
    )
    if axes is None:
        figure.align_ylabels(shown)
    return figure


def _look(index: int) -> dict[str, Any]:
    return {"color": colour(index), "ls": DASHES[index % len(DASHES)], "lw": 1}


def _draw(panel: Axes, walk: Walk, values: np.ndarray, index: int) -> None:
    values = np.where(np.isfinite(values), values, np.nan)
    panel.plot(walk.t, values, **_look(index))
    if 0 < walk.top < 1:
        at = int(np.abs(walk.t - walk.top).argmin())
        panel.plot(walk.t[at], values[at], marker(index), color=colour(index), ms=3.5)
