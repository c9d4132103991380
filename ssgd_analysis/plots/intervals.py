"""Metrics with their intervals, method by method."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssgd_analysis.plots.looks import Look, looks
from ssgd_analysis.plots.paper import fitting
from ssgd_analysis.plots.style import DOUBLE, OwnAxes, inches, page_width, panels, styled

IntervalRow = tuple[float, tuple[float, float] | None, Sequence[float]]
PANEL, ROW = 1.25, 0.16  # least width of a panel and height of a method in it, inches


@styled
def interval_figure(
    settings: Mapping[str, Mapping[str, Mapping[str, IntervalRow]]],
    *,
    width: float = DOUBLE,
    axes: OwnAxes = None,
) -> Figure:
    """One block of panels a setting, one panel a metric, one line a method.

    Args:
        settings: setting → label of the metric → method → (mean, 95% interval or ``None``,
            each seed's value); the same metrics in all settings.
        width: of the figure, inches; names are cut for it.
        axes: the user's own, one for each metric of each setting.
    """
    width = page_width(width)
    blocks = list(settings.values())
    names = list(dict.fromkeys(name for block in blocks for own in block.values() for name in own))
    look, short = looks(names), dict(zip(names, fitting(names, 0.3 * width), strict=True))
    count = max(len(block) for block in blocks)
    fit = max(1, int((width - max(map(inches, short.values())) - 0.1) / PANEL))
    rows = math.ceil(count / fit)
    columns = math.ceil(count / rows)  # eight are four and four, not five and three
    used = [rows * columns * i + j for i, block in enumerate(blocks) for j in range(len(block))]
    most = max(len(own) for block in blocks for own in block.values())
    figure, shown = panels(
        rows * len(blocks),
        columns,
        used=used,
        width=width / columns,
        height=0.5 + ROW * most,
        axes=axes,
    )
    drawn = [
        (title, label, own) for title, block in settings.items() for label, own in block.items()
    ]
    for panel, place, (title, label, own) in zip(shown, used, drawn, strict=True):
        first = axes is not None or place % columns == 0
        panel.set(title=title, xlabel=label)
        _rows(panel, own, look)
        panel.set_yticks(range(len(own)), [short[name] if first else "" for name in own])
    return figure


def _rows(panel: Axes, rows: Mapping[str, IntervalRow], look: Mapping[str, Look]) -> None:
    for index, (name, (mean, interval, values)) in enumerate(rows.items()):
        own = look[name].colour
        if interval is not None:
            panel.plot(interval, [index, index], color=own, lw=1.6)
        panel.plot(values, [index] * len(values), "|", color=own, ms=5)
        panel.plot([mean], [index], look[name].marker, color=own, ms=4)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.xaxis.set_major_locator(MaxNLocator(3))  # long numbers would meet
    panel.grid(axis="y", lw=0.3)
