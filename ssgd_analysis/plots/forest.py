"""Differences to a baseline with their intervals, metric by metric."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ssgd_analysis.plots.paper import fitting
from ssgd_analysis.plots.style import (
    COLOURS,
    COLUMN,
    LINE,
    OwnAxes,
    headline,
    legend,
    page_width,
    panels,
    styled,
)

# verdict → colour, marker: distinguishable without colour too
LOOKS = {
    "flatter": (COLOURS[1], "v"),
    "sharper": (COLOURS[2], "^"),
    "no difference": (COLOURS[0], "o"),
    "undecided": (COLOURS[3], "D"),
    "not comparable": (COLOURS[7], "X"),
}


@dataclass(frozen=True)
class Effect:
    """One line of the picture.

    Args:
        value: the difference, relative to the baseline; ``None``: there is none.
        interval: of it, or ``None``.
        verdict: a key of :data:`LOOKS`.
        circular: the method optimised this metric: drawn hollow.
        margin: the smallest relative difference that matters, if there is one.
    """

    value: float | None
    interval: tuple[float, float] | None
    verdict: str
    circular: bool = False
    margin: float | None = None


@styled
def forest_figure(
    metrics: Mapping[str, Mapping[str, Effect]],
    *,
    baseline: str = "",
    width: float = COLUMN,
    axes: OwnAxes = None,
) -> Figure:
    """One block of lines a metric, one line a group, all on one axis.

    The axis holds every difference; an interval that leaves it ends in an arrow head. Shaded:
    the margin, differences too small to matter.

    Args:
        metrics: label → group → its difference.
        baseline: what was subtracted, for the title.
        width: of the figure, inches; names are cut for it.
        axes: the user's own, one.
    """
    width = page_width(width)
    groups = list(dict.fromkeys(group for rows in metrics.values() for group in rows))
    short = dict(zip(groups, fitting(groups, 0.42 * width), strict=True))
    effects = [effect for rows in metrics.values() for effect in rows.values()]
    count = len(metrics) + len(effects)
    height = LINE * count + 0.5
    figure, (panel,) = panels(1, 1, width=width, height=height, axes=axes)
    reach, names, offset = _reach(effects), {}, 0
    for label, rows in metrics.items():
        ground = {"facecolor": "white", "lw": 0, "pad": 1}
        panel.text(-reach, offset, label, weight="bold", va="center_baseline", bbox=ground)
        for row, (group, effect) in enumerate(rows.items(), start=offset + 1):
            names[row] = short[group]
            _line(panel, row, effect, reach)
        offset += len(rows) + 1
    panel.axvline(0, color="black", lw=0.6, zorder=1)
    panel.set(xlim=(-reach, reach), ylim=(offset - 0.5, -0.6), yticks=list(names))
    panel.set_yticklabels(names.values())
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.xaxis.set_major_locator(MaxNLocator(int(width) + 1, steps=[1, 2, 2.5, 5, 10]))
    panel.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g}%" if value else "0")
    panel.set_xlabel("relative difference")
    if baseline:
        name = fitting([baseline], width - 0.7)[0]
        if axes is None:
            headline(figure, f"against {name}")  # in the middle, above the names too
        else:
            panel.set_title(f"against {name}")
    _legend(figure, effects, axes)
    return figure


def _reach(effects: list[Effect]) -> float:
    """Half of the axis: all differences, and the intervals too unless they would hide these."""
    values = [abs(e.value) for e in effects if e.value is not None]
    ends = [abs(end) for e in effects for end in e.interval or ()]
    least = max([1.5 * value for value in values] + [2 * (e.margin or 0) for e in effects])
    return 1.05 * min(max([least, *ends]), 1.5 * least) or 1.0


def _line(axes: Axes, row: int, effect: Effect, reach: float) -> None:
    if effect.margin is not None:
        height = [row - 0.5, row + 0.5]
        axes.fill_betweenx(height, -effect.margin, effect.margin, color="#dddddd", lw=0, zorder=0)
    if effect.value is None:
        return
    colour, marker = LOOKS[effect.verdict]
    if effect.interval is not None:
        ends = np.clip(effect.interval, -reach, reach)
        axes.plot(ends, [row, row], color=colour, lw=1.2, solid_capstyle="butt")
        for end, head in zip(effect.interval, "<>", strict=True):
            if abs(end) > reach:
                x = np.clip(end, -0.985 * reach, 0.985 * reach)
                axes.plot([x], [row], head, color=colour, ms=3, mew=0)
    face = "white" if effect.circular else colour
    axes.plot([effect.value], [row], marker, color=colour, mfc=face, ms=4, mew=0.9)


def _legend(figure: Figure, effects: list[Effect], axes: OwnAxes) -> None:
    handles: list[Any] = []
    labels = []
    for verdict, (colour, marker) in LOOKS.items():
        if any(effect.verdict == verdict for effect in effects):
            handles.append(Line2D([], [], color=colour, marker=marker, ms=4, lw=1.2))
            labels.append(verdict)
    if any(effect.circular for effect in effects):
        handles.append(Line2D([], [], color="black", marker="o", mfc="white", ms=4, lw=0))
        labels.append("circular")
    if any(effect.margin is not None for effect in effects):
        handles.append(Patch(color="#dddddd", lw=0))
        labels.append("margin")
    legend(figure, handles, labels, axes)
