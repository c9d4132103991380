"""Curvature through training, with the edge of stability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssgd_analysis.plots.style import OwnAxes, colour, panels, styled


@styled
def tracking_figure(
    records: Sequence[Mapping[str, Any]], *, limit_name: str = "2/lr", axes: OwnAxes = None
) -> Figure:
    """Train loss, and below it what was tracked, on one axis of steps.

    Args:
        records: lines of ``tracking.jsonl``, all with the same keys; what is ``None`` is a gap.
        limit_name: the name of the stability limit in the legend.
        axes: the user's own, one for the loss and one for each thing tracked.
    """

    def column(*keys: str | int) -> np.ndarray:
        values: list[Any] = list(records)
        for key in keys:
            values = [None if value is None else value[key] for value in values]
        return np.array(values, dtype=float)  # None becomes NaN

    shown = [kind for kind in ("eigenvalues", "trace", "third_order") if kind in records[0]]
    height = 1.8 if len(shown) == 1 else 1.5
    count = 1 + len(shown)
    figure, own = panels(count, 1, width=5.0, height=height, sharex=True, axes=axes)
    top, *rest = own
    step, loss = column("step"), column("train_loss")
    top.plot(step, loss, color=colour(0), lw=1)
    if loss.min() > 0 and loss.max() > 20 * loss.min():
        top.set_yscale("log")
    top.set_ylabel("train loss")
    for panel, kind in zip(rest, shown, strict=True):
        if kind == "eigenvalues":
            count = len(records[0]["eigenvalues"])
            values = np.stack([column(kind, index, "value") for index in range(count)])
            _sharpness(panel, step, values, column(kind, 0, "stderr"))
            _limit(panel, step, values[0], column("stability_limit"), limit_name)
            panel.set_ylabel("sharpness")
        elif kind == "trace":
            _band(panel, step, column(kind, "value"), column(kind, "stderr"), 3, "trace")
            panel.set_ylabel("trace")
        else:
            panel.axhline(1, color=colour(7), lw=0.7, ls=":")
            for key, name, index in (("cosine", "cosine", 4), ("ratio", "norm ratio", 5)):
                value, error = column(kind, key, "value"), column(kind, key, "stderr")
                _band(panel, step, value, error, index, name)
            largest = np.nanmax(column(kind, "ratio", "value"), initial=1)
            if largest > 20:  # kinks, see docs/tracking.md
                panel.set_yscale("symlog", linthresh=1)
                ticks = [0, *(10**power for power in range(int(np.log10(largest)) + 1))]
                panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_ylabel("third order")
        # above the axes, so that it hides no line
        panel.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)
    (rest or [top])[-1].set_xlabel("step")
    figure.align_ylabels(own)
    return figure


def _sharpness(panel: Axes, step: np.ndarray, values: np.ndarray, stderr: np.ndarray) -> None:
    """The largest eigenvalue with its sampling error, the others thin; shape (K, M)."""
    if others := panel.plot(step, values[1:].T, color=colour(6), lw=0.7):
        others[0].set_label("the next one" if len(others) == 1 else f"the next {len(others)}")
    _band(panel, step, values[0], stderr, 1, "λ_max")


def _limit(panel: Axes, step: np.ndarray, value: np.ndarray, limit: np.ndarray, name: str) -> None:
    """The edge of stability, unless there is none."""
    if np.isnan(limit).all():
        return
    # a line far above, or one that a schedule sends to infinity, must not flatten the rest
    largest, lowest = np.nanmax(value), np.nanmin(limit)
    visible = lowest < 3 * largest
    name = name if visible else f"{name} ≥ {lowest:.3g}, above the picture"
    bottom, top = panel.get_ylim()
    panel.plot(step, limit, "--", color=colour(2), lw=1, label=name)
    panel.set_ylim(bottom, max(top, 1.2 * lowest * visible))


def _band(
    panel: Axes, step: np.ndarray, value: np.ndarray, stderr: np.ndarray, index: int, name: str
) -> None:
    """A line with a band of one standard error."""
    panel.plot(step, value, color=colour(index), lw=1.1, label=name)
    panel.fill_between(step, value - stderr, value + stderr, color=colour(index), alpha=0.2, lw=0)
