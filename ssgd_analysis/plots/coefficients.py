"""Rank correlations with their intervals, metric by metric."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssgd_analysis.plots.paper import fitting, grid
from ssgd_analysis.plots.style import (
    COLUMN,
    LINE,
    OwnAxes,
    colour,
    legend,
    marker,
    page_width,
    styled,
)

CoefficientRow = tuple[float, tuple[float, float] | None]
MARK = 0.07  # height that one coefficient takes, inches


@styled
def coefficient_figure(
    outcomes: Mapping[
        str, Mapping[str, Mapping[str, tuple[CoefficientRow | None, CoefficientRow | None]]]
    ],
    *,
    width: float = COLUMN,
    axes: OwnAxes = None,
) -> Figure:
    """One panel an outcome, one band a metric, one colour a view; bars are 95% intervals.

    Args:
        outcomes: label → metric → view → (τ, its interval or ``None``), the same of the granulated
            coefficient Ψ (drawn hollow); ``None``: there is none.
        width: of the figure, inches.
        axes: the user's own, one an outcome.
    """
    width = page_width(width)
    every = [rows for metrics in outcomes.values() for rows in metrics.values()]
    views = list(dict.fromkeys(view for rows in every for view in rows))
    labels = list(dict.fromkeys(label for metrics in outcomes.values() for label in metrics))
    height = max(LINE, MARK * (2 * len(views) + 1)) * len(labels) + 0.5
    figure, shown = grid(
        len(outcomes), width=width, panel=2.1, height=height, sharey=True, axes=axes
    )
    for panel, (outcome, metrics) in zip(shown, outcomes.items(), strict=True):
        for position, label in enumerate(labels):
            panel.axhspan(position - 0.5, position + 0.5, color="#f2f2f2", lw=0, alpha=position % 2)
            for view, pair in metrics.get(label, {}).items():
                index = views.index(view)
                look = {"color": colour(index), "marker": marker(index), "ms": 3, "mew": 0.7}
                for half, row in enumerate(pair):
                    if row is None:
                        continue
                    y = position + (2 * index + half + 1) / (2 * len(views) + 1) - 0.5
                    if row[1] is not None:
                        panel.plot(row[1], [y, y], color=colour(index), lw=0.8)
                    face = "white" if half else colour(index)
                    panel.plot([row[0]], [y], mfc=face, **look)  # type: ignore[arg-type]
        panel.axvline(0, color="black", lw=0.6, zorder=1)
        panel.set(title=outcome, xlim=(-1.04, 1.04), ylim=(len(labels) - 0.5, -0.5))
        panel.set(xticks=[-1, -0.5, 0, 0.5, 1], yticks=range(len(labels)))
        panel.set_xticklabels(["−1", "−.5", "0", ".5", "1"])
        panel.set_yticklabels(fitting(labels, 0.35 * width))
        panel.tick_params(axis="y", length=0)
    handles: list[Any] = [
        Line2D([], [], color=colour(i), marker=marker(i), ms=3, lw=0.8) for i in range(len(views))
    ]
    handles += [Line2D([], [], color="black", marker="o", mfc=f, ms=3, lw=0) for f in ("k", "w")]
    legend(figure, handles, [*fitting(views, width - 0.5), "τ", "Ψ (granulated)"], axes)
    return figure
