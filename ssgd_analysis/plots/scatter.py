"""Every metric against every other, one point a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.paper import fitting
from ssgd_analysis.plots.scale import LARGE, round_ones, short_number
from ssgd_analysis.plots.style import DOUBLE, OwnAxes, legend, page_width, panels, styled


@styled
def metric_scatter(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    width: float = DOUBLE,
    axes: OwnAxes = None,
) -> Figure:
    """Small multiples: the lower triangle of metric × metric, groups by colour and marker.

    Args:
        groups: name → label of a metric → a value for each run, NaN where it is missing; the same
            metrics, two at least, in all groups.
        width: of the figure, inches; names are cut for it.
        axes: the user's own, the triangle row by row: one, two, … of them.
    """
    labels = list(next(iter(groups.values())))
    count, width = len(labels) - 1, page_width(width)
    side = width / count
    figure, triangle = panels(
        count,
        count,
        used=[count * row + column for row in range(count) for column in range(row + 1)],
        width=side,
        height=max(0.9, 0.85 * side),
        sharex="col",
        sharey="row",
        axes=axes,
    )
    shown = [triangle[row * (row + 1) // 2 :][: row + 1] for row in range(count)]
    look, handles = looks(groups), {}
    for row, own in enumerate(shown):
        for column, panel in enumerate(own):
            for name, metrics in groups.items():
                x, y = metrics[labels[column]], metrics[labels[row + 1]]
                (handles[name],) = panel.plot(
                    x, y, look[name].marker, color=look[name].colour, ms=3, mew=0, alpha=0.8
                )
    ticks = 2 if side < 1.2 else 3
    short = dict(zip(labels, fitting(labels, 0.75 * side), strict=True))
    for index in range(count):
        _axis(shown[-1][index], "x", _all(groups, labels[index]), 2)  # side by side
        _axis(shown[index][0], "y", _all(groups, labels[index + 1]), ticks)
        shown[-1][index].set_xlabel(short[labels[index]])
        shown[index][0].set_ylabel(short[labels[index + 1]])
    if axes is None:
        figure.align_labels()
    legend(figure, list(handles.values()), fitting(handles, width - 0.5), axes)
    return figure


def _all(groups: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> np.ndarray:
    return np.concatenate([np.asarray(own[label], dtype=float) for own in groups.values()])


def _axis(panel: Axes, which: str, values: np.ndarray, ticks: int) -> None:
    """Logarithmic where values of one sign span much; few ticks either way."""
    finite = values[np.isfinite(values)]
    axis = panel.xaxis if which == "x" else panel.yaxis
    if len(finite) and finite.min() > 0 and finite.max() > LARGE * finite.min():
        panel.set(**{f"{which}scale": "log"})
        axis.set_major_locator(FixedLocator(round_ones(finite.min(), finite.max(), ticks)))
        axis.set_major_formatter(short_number)
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(ticks))
