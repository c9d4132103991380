"""Metrics with their intervals, method by method."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssgd_analysis.plots.paper import LETTER
from ssgd_analysis.plots.style import OwnAxes, colour, marker, panels, short_names, styled

IntervalRow = tuple[float, tuple[float, float] | None, Sequence[float]]


@styled
def interval_figure(
    settings: Mapping[str, Mapping[str, Mapping[str, IntervalRow]]], *, axes: OwnAxes = None
) -> Figure:
    """One row of panels a setting, one panel a metric, one line a method.

    Args:
        settings: setting → label of the metric → method → (mean, 95% interval or ``None``,
            each seed's value); the same metrics in all settings.
        axes: the user's own, one for each metric of each setting.
    """
    columns = max(len(metrics) for metrics in settings.values())
    methods = max(len(rows) for metrics in settings.values() for rows in metrics.values())
    height = 0.6 + 0.23 * methods
    figure, shown = panels(len(settings), columns, height=height, axes=axes)
    names = {id(rows): short_names(rows, 60) for m in settings.values() for rows in m.values()}
    longest = max(len(name) for short in names.values() for name in short)
    if axes is None:  # room for long names that the axes do not have to give
        figure.set_figwidth(figure.get_figwidth() + LETTER * max(0, longest - 10))
    for row, (setting, metrics) in enumerate(settings.items()):
        for column, (label, rows) in enumerate(metrics.items()):
            panel = shown[row * columns + column]
            for index, (mean, interval, values) in enumerate(rows.values()):
                if interval is not None:
                    panel.plot(interval, [index, index], color=colour(index), lw=1.6)
                panel.plot(values, [index] * len(values), "|", color=colour(index), ms=6)
                panel.plot([mean], [index], marker(index), color=colour(index), ms=4)
            panel.set(
                title=setting, xlabel=label, yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5)
            )
            panel.set_yticklabels(names[id(rows)] if column == 0 else [])
            panel.xaxis.set_major_locator(MaxNLocator(4))  # long numbers would meet
            panel.grid(axis="y", lw=0.3)
        for panel in shown[row * columns + len(metrics) : (row + 1) * columns]:
            panel.set_visible(False)
    return figure
