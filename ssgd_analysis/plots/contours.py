"""Loss over planes, every panel on one colour scale."""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.plots.style import panels, short_names, styled

LEVELS = 16


@styled
def loss_contours(
    planes: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    columns: int = 3,
    xlabel: str = "α",
    ylabel: str = "β",
    label: str = "train loss",
) -> Figure:
    """One filled contour plot for each plane, levels spaced evenly in the logarithm.

    Args:
        planes: name → (alpha, shape (A,); beta, shape (B,); loss, shape (A, B)).
        columns: most panels in a row.
        xlabel: what alpha is.
        ylabel: what beta is.
        label: what the values are.
    """
    rows = math.ceil(len(planes) / columns)
    columns = math.ceil(len(planes) / rows)  # four are two and two, not three and one
    width = 2.55 + 0.75 / columns  # the colour bar takes as much from few panels as from many
    figure, axes = panels(rows, columns, width=width, height=2.5, sharex=True, sharey=True)
    finite = np.concatenate([loss[np.isfinite(loss)] for _, _, loss in planes.values()])
    low, high = float(finite.min()), float(finite.max())
    shift = max(0.0, 1e-6 - low)  # a loss may be zero or negative
    levels = np.geomspace(low + shift, max(high + shift, (low + shift) * 1.0001), LEVELS) - shift
    levels[[0, -1]] += [-1e-9 * abs(low) - 1e-12, 1e-9 * abs(high) + 1e-12]  # both ends inside
    norm = mpl.colors.BoundaryNorm(levels, 256)
    names = short_names(planes, 26)
    for index, (name, (alpha, beta, loss)) in enumerate(zip(names, planes.values(), strict=True)):
        panel = axes[index]
        filled = panel.contourf(alpha, beta, loss.T, levels=levels, norm=norm, cmap="viridis")
        panel.contour(alpha, beta, loss.T, levels=levels[1:-1], colors="white", linewidths=0.3)
        panel.plot([0], [0], "+", color="white", ms=7)
        panel.set(title=name, aspect="equal")
        if index + columns >= len(planes):
            panel.set_xlabel(xlabel)
            panel.tick_params(labelbottom=True)
        if index % columns == 0:
            panel.set_ylabel(ylabel)
    for panel in axes[len(planes) :]:
        panel.set_visible(False)
    bar = figure.colorbar(filled, ax=axes, shrink=0.85, ticks=levels[::3], label=label)
    bar.ax.set_yticklabels([f"{level:.3g}" for level in levels[::3].clip(low, high)])
    return figure
