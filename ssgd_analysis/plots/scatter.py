"""Every metric against every other, one point a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ssgd_analysis.plots.paper import DOUBLE, compact, fitting, legend
from ssgd_analysis.plots.style import colour, marker

LARGE = 20.0  # ratio of values above which an axis is logarithmic


@compact
def metric_scatter(
    groups: Mapping[str, Mapping[str, Sequence[float]]], *, width: float = DOUBLE
) -> Figure:
    """Small multiples: the lower triangle of metric × metric, groups by colour and marker.

    Args:
        groups: name → label of a metric → a value for each run, NaN where it is missing; the same
            metrics, two at least, in all groups.
        width: of the figure, inches.
    """
    labels = list(next(iter(groups.values())))
    count = len(labels) - 1
    side = width / count
    figure = Figure(figsize=(width, max(0.9, 0.85 * side) * count), layout="constrained")
    panels = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    handles = {}
    for row in range(count):
        for column in range(count):
            panel = panels[row, column]
            if column > row:
                panel.remove()
                continue
            for index, (name, metrics) in enumerate(groups.items()):
                x, y = metrics[labels[column]], metrics[labels[row + 1]]
                (handles[name],) = panel.plot(
                    x, y, marker(index), color=colour(index), ms=3, mew=0, alpha=0.8
                )
    ticks = 2 if side < 1.2 else 3
    short = dict(zip(labels, fitting(labels, 0.75 * side), strict=True))
    for index in range(count):
        _axis(panels[-1, index], "x", _all(groups, labels[index]), 2)  # side by side
        _axis(panels[index, 0], "y", _all(groups, labels[index + 1]), ticks)
        panels[-1, index].set_xlabel(short[labels[index]])
        panels[index, 0].set_ylabel(short[labels[index + 1]])
    figure.align_labels()
    legend(figure, list(handles.values()), fitting(handles, width - 0.5))
    return figure


def _all(groups: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> np.ndarray:
    return np.concatenate([np.asarray(own[label], dtype=float) for own in groups.values()])


def _axis(panel: Axes, which: str, values: np.ndarray, ticks: int) -> None:
    """Logarithmic where values of one sign span much; few ticks either way."""
    known = values[np.isfinite(values)]
    axis = panel.xaxis if which == "x" else panel.yaxis
    if len(known) and known.min() > 0 and known.max() > LARGE * known.min():
        panel.set(**{f"{which}scale": "log"})
        axis.set_major_locator(FixedLocator(_round_ones(known.min(), known.max(), ticks)))
        axis.set_major_formatter(_short)
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(ticks))


def _round_ones(low: float, high: float, count: int) -> list[float]:
    """At most ``count`` powers of ten between two values, or 2 and 5 of them too where few are."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    for leading in ((1.0,), (1.0, 2.0, 5.0)):
        every = [lead * 10.0**power for power in range(first, last + 1) for lead in leading]
        inside = [value for value in every if low <= value <= high]
        if len(inside) >= 2:
            break
    apart = (high / low) ** (1 / count)  # so that their labels do not touch
    kept = inside[:1]
    for value in inside[1:]:
        if value >= apart * kept[-1]:
            kept.append(value)
    return kept


def _short(value: float, _place: float) -> str:
    """A round number in few letters."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e−")
