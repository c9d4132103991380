"""Losses over planes as surfaces, side by side on one scale."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.plots.contours import LOSSES, Plane
from ssgd_analysis.plots.scale import distinct, loss_scale
from ssgd_analysis.plots.style import (
    COLUMN,
    DOUBLE,
    fitting_names,
    headline,
    page_width,
    paper,
    small_print,
    styled,
)

SIDE = 2.3  # of one surface, inches, where the page has room


@styled
def surface_figure(
    planes: Mapping[str, Plane],
    *,
    xlabel: str = "α",
    ylabel: str = "β",
    label: str = "train loss",
    notes: Sequence[str] = (),
) -> Figure:
    """One surface a plane; heights and colours have the logarithmic scale of the contours.

    Args:
        planes: title → losses; what is above the scale is cut off, what is not finite a hole.
        xlabel: what alpha is.
        ylabel: what beta is.
        label: what the losses are.
        notes: lines of small print.
    """
    marked = [mark.loss for plane in planes.values() for mark in plane.marks]
    scale = loss_scale([plane.values for plane in planes.values()], marked).of_rises()
    columns = min(len(planes), max(1, int(page_width(DOUBLE) / 2.2)))
    rows = -(-len(planes) // columns)
    width = page_width(min(DOUBLE, max(COLUMN, columns * SIDE)))
    side = width / columns
    figure = Figure(figsize=(width, 0.85 * rows * side), layout="constrained")
    if paper().title:
        headline(figure, paper().title)
    levels = scale.levels()
    heights = scale.placed(levels)
    ticks = list(range(0, len(levels), 3))
    for index, (name, plane) in enumerate(
        zip(fitting_names(planes, 0.9 * side), planes.values(), strict=True), start=1
    ):
        panel = figure.add_subplot(rows, columns, index, projection="3d")
        panel.set_box_aspect((1, 1, 0.75), zoom=0.85)
        own = plane.values.astype(float)
        z = np.where(own > scale.high, np.nan, scale.placed(own))
        mesh = np.meshgrid(plane.alpha, plane.beta, indexing="ij")
        norm = mpl.colors.Normalize(heights[0], heights[-1])
        panel.plot_surface(*mesh, z, cmap=LOSSES, norm=norm, rcount=60, ccount=60, lw=0.1)
        panel.set(title=name, zlim=(heights[0], heights[-1]))
        panel.set_xlabel(xlabel, labelpad=-6)
        panel.set_ylabel(ylabel, labelpad=-6)
        panel.set_zlabel(label, labelpad=0)
        panel.set_zticks(heights[ticks], distinct(levels[ticks]))
        panel.tick_params(pad=-2, labelsize=6)
        panel.tick_params(axis="z", pad=1)
        panel.locator_params(axis="x", nbins=3)
        panel.locator_params(axis="y", nbins=3)
    beyond = [f"cut off: loss above {scale.high:.3g}"] * (scale.most > scale.high)
    small_print(figure, [*notes, *beyond])
    return figure
