"""All groups and metrics at a glance: numbers on colours of significance."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ssgd_analysis.plots.forest import LOOKS, Effect
from ssgd_analysis.plots.paper import fitting
from ssgd_analysis.plots.style import (
    DOUBLE,
    LINE,
    OwnAxes,
    inches,
    legend,
    page_width,
    panels,
    styled,
)

# light enough for black text
FILLS = {
    "flatter": "#9fd0f0",
    "sharper": "#f3b58c",
    "no difference": "#ffffff",
    "undecided": "#f7efc6",
    "not comparable": "#dcdcdc",
}
CELL, ROW = 0.46, 0.155  # least width and height of a cell, inches
SIGNS = {
    "flatter": "▼", "sharper": "▲", "no difference": "", "undecided": "?", "not comparable": "×",
}  # fmt: skip


@styled
def verdict_table(
    metrics: Mapping[str, Mapping[str, Effect]], *, width: float = DOUBLE, axes: OwnAxes = None
) -> Figure:
    """Groups down, metrics across; each cell the relative difference on its verdict's colour.

    A sign repeats the colour; metrics that a method was trained on stand in brackets.

    Args:
        metrics: label → group → its difference.
        width: of the figure, inches.
        axes: the user's own, one.
    """
    width = page_width(width)
    figure, (panel,) = panels(1, 1, width=width, height=0.05, axes=axes)
    if axes is not None:
        width = panel.get_window_extent().width / figure.dpi
    groups = list(dict.fromkeys(group for rows in metrics.values() for group in rows))
    short = fitting(groups, 0.38 * width)
    room = max(map(inches, short)) + 0.16
    count = math.ceil(len(metrics) / max(1, int((width - room) / CELL)))
    in_a_row = math.ceil(len(metrics) / count)
    labels = list(metrics)
    blocks = [labels[i : i + in_a_row] for i in range(0, len(labels), in_a_row)]
    cell = (width - room) / in_a_row
    heads = dict(zip(labels, fitting(labels, 1.3), strict=True))
    tall = max(map(inches, heads.values())) > cell - 0.04  # upright where they would not fit
    tops = [max(inches(heads[label]) for label in own) + 0.06 if tall else LINE for own in blocks]
    height = sum(tops) + len(blocks) * (0.1 + ROW * len(groups))
    if axes is None:
        figure.set_figheight(figure.get_figheight() + height)
    panel.set(xlim=(0, width + 0.02), ylim=(height, 0))
    panel.axis("off")
    top = 0.0
    for block, head in zip(blocks, tops, strict=True):
        top += head
        for column, label in enumerate(block):
            middle = room + (column + 0.5) * cell
            turned = {"rotation": 90, "va": "bottom"} if tall else {"va": "bottom"}
            panel.text(middle, top - 0.02, heads[label], ha="center", **turned)
            for row, group in enumerate(groups):
                if group in metrics[label]:
                    corner = (room + column * cell, top + row * ROW)
                    _cell(panel, corner, cell, metrics[label][group])
        for row, name in enumerate(short):
            panel.text(0, top + (row + 0.5) * ROW, name, va="center_baseline")
        top += ROW * len(groups) + 0.1
    shown = {effect.verdict for rows in metrics.values() for effect in rows.values()}
    words = [verdict for verdict in LOOKS if verdict in shown]
    handles = [Patch(facecolor=FILLS[word], edgecolor="#999999", lw=0.4) for word in words]
    names = [f"{SIGNS[word]} {word}".strip() for word in words]
    if any(effect.circular for rows in metrics.values() for effect in rows.values()):
        handles.append(Patch(alpha=0))
        names.append("( ) circular")
    legend(figure, handles, names, axes)
    return figure


def _cell(axes: Axes, corner: tuple[float, float], width: float, effect: Effect) -> None:
    fill = FILLS[effect.verdict]
    axes.add_patch(Rectangle(corner, width, ROW, facecolor=fill, edgecolor="#999999", lw=0.4))
    text = "–" if effect.value is None else _percent(effect.value)
    text = f"({text})" if effect.circular else text
    x, y = corner[0] + width / 2, corner[1] + ROW / 2
    axes.text(x, y, f"{text}{SIGNS[effect.verdict]}", ha="center", va="center_baseline", size=6)


def _percent(value: float) -> str:
    percent = 100 * value
    return f"{percent:+.0f}%" if abs(percent) >= 9.95 else f"{percent:+.1f}%"
