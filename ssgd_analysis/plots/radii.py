"""Sharpness over the radius it is measured at, with bands."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ssgd_analysis.plots.paper import COLUMN, compact, fitting, grid, legend
from ssgd_analysis.plots.style import colour, marker

PANEL = 1.6  # least width, inches
Line = tuple[np.ndarray, np.ndarray, np.ndarray]


@compact
def radius_curves(
    metrics: Mapping[str, tuple[str, Mapping[str, Line]]], *, width: float = COLUMN
) -> Figure:
    """One panel a metric, one line a checkpoint; the band is ± two standard errors.

    Args:
        metrics: label → (what the radius is called, checkpoint → (radii, values, standard errors;
            NaN: unknown), each of shape (radii,)).
        width: of the figure, inches.
    """
    figure, axes = grid(len(metrics), width=width, panel=PANEL, height=1.5)
    names = list(dict.fromkeys(name for _, lines in metrics.values() for name in lines))
    handles = {}
    for panel, (over, lines) in zip(axes, metrics.values(), strict=True):
        for name, (radii, values, errors) in lines.items():
            index = names.index(name)
            look: dict[str, Any] = {
                "color": colour(index),
                "marker": marker(index),
                "lw": 0.9,
                "ms": 3,
            }
            (handles[name],) = panel.plot(radii, values, **look)
            band = 2 * np.nan_to_num(errors)
            panel.fill_between(
                radii, values - band, values + band, color=colour(index), alpha=0.2, lw=0
            )
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(over)
    columns = min(len(metrics), int(width / PANEL))
    titles = fitting(metrics, width / columns - 0.35)
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title)
    legend(figure, [handles[name] for name in names], fitting(names, width - 0.5))
    return figure
