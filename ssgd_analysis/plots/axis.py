"""Means with intervals along an axis: gains, curves of a strength, variances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.style import OwnAxes, inches, legend, page_width, panels, styled

AxisPoint = tuple[float, float, float, float]  # position, mean, low, high


@dataclass(frozen=True)
class AxisPanel:
    """One panel.

    Args:
        label: of the vertical axis.
        lines: name → points.
        levels: name → height of a horizontal line: what lies nowhere on the axis.
        zero: draw the line of no difference.
        log: a logarithmic vertical axis.
        title: above.
    """

    label: str
    lines: Mapping[str, Sequence[AxisPoint]]
    levels: Mapping[str, float] = field(default_factory=dict)
    zero: bool = False
    log: bool = False
    title: str = ""


@styled
def axis_figure(
    shown: Sequence[AxisPanel],
    *,
    xlabel: str,
    ticks: Mapping[float, str],
    log: bool = False,
    joined: bool = True,
    axes: OwnAxes = None,
) -> Figure:
    """Panels side by side over one horizontal axis.

    Args:
        shown: the panels.
        xlabel: what the axis is.
        ticks: position → its name.
        log: a logarithmic horizontal axis.
        joined: lines between the points; else points at the same position stand beside each other.
        axes: the user's own, one a panel.
    """
    columns = min(3, len(shown), max(1, int(page_width(7.5) / 2.0)))
    rows = -(-len(shown) // columns)
    width = 3.3 if columns < 3 else 2.5
    figure, subplots = panels(
        rows, columns, used=range(len(shown)), width=width, height=2.1, axes=axes
    )
    look = looks(name for one in shown for name in [*one.lines, *one.levels])
    handles = {}
    for panel, one in zip(subplots, shown, strict=True):
        if one.zero:
            panel.axhline(0, color="#666666", lw=0.7)
        for name, points in one.lines.items():
            own, count = look[name].colour, len(one.lines)
            shift = 0.0 if joined else 0.6 * ((list(one.lines).index(name) + 0.5) / count - 0.5)
            x = [point[0] + shift for point in points]
            means = [point[1] for point in points]
            drawn: dict[str, Any] = {"color": own, "marker": look[name].marker, "ms": 3.5}
            (handles[name],) = panel.plot(x, means, ls="-" if joined else "", lw=1, **drawn)
            for at, point in zip(x, points, strict=True):
                panel.plot([at, at], point[2:], color=own, lw=1)
        for name, level in one.levels.items():
            handles[name] = panel.axhline(level, color=look[name].colour, ls="--", lw=1)
        if log:
            panel.set_xscale("log")
        if one.log:
            panel.set_yscale("log")
        panel.xaxis.set_major_locator(FixedLocator(list(ticks)))
        panel.xaxis.set_minor_locator(NullLocator())
        room = 0.75 * figure.get_figwidth() / columns
        crowded = len(ticks) > 4 or 1.3 * sum(map(inches, ticks.values())) > room
        panel.set_xticks(list(ticks), list(ticks.values()), rotation=40 * crowded)
        if crowded:
            for text in panel.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")
        panel.set(xlabel=xlabel, ylabel=one.label, title=one.title)
    legend(figure, list(handles.values()), list(handles), axes)
    return figure
