"""Sharpness over the radius it is measured at, with bands."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.paper import fitting, grid
from ssgd_analysis.plots.style import COLUMN, OwnAxes, legend, page_width, small_print, styled

PANEL = 1.6  # least width, inches
RadiusLine = tuple[np.ndarray, np.ndarray, np.ndarray]


@styled
def radius_curves(
    metrics: Mapping[str, tuple[str, Mapping[str, RadiusLine]]],
    *,
    width: float = COLUMN,
    notes: Sequence[str] = (),
    axes: OwnAxes = None,
) -> Figure:
    """One panel a metric, one line a checkpoint; the band is ± two standard errors.

    Both axes are logarithmic where all values are positive.

    Args:
        metrics: label → (what the radius is called, checkpoint → (radii, values, standard errors;
            NaN: unknown), each of shape (radii,)).
        width: of the figure, inches; titles are cut for it.
        notes: lines of small print.
        axes: the user's own, one a metric.
    """
    width = page_width(width)
    figure, shown = grid(len(metrics), width=width, panel=PANEL, height=1.5, axes=axes)
    names = list(dict.fromkeys(name for _, lines in metrics.values() for name in lines))
    look, handles = looks(names), {}
    for panel, (over, lines) in zip(shown, metrics.values(), strict=True):
        lowest, highest = _range([values for _, values, _ in lines.values()])
        floor = lowest / 10 if lowest > 0 else -np.inf  # below a logarithmic axis
        for name, (radii, values, errors) in lines.items():
            own = look[name].colour
            drawn: dict[str, Any] = {"color": own, "marker": look[name].marker, "lw": 0.9}
            (handles[name],) = panel.plot(radii, values, ms=3, **drawn)
            band = 2 * np.nan_to_num(errors)
            low = np.maximum(values - band, floor)
            panel.fill_between(radii, low, values + band, color=own, alpha=0.2, lw=0)
        panel.set_xscale("log")
        measured = np.unique(np.concatenate([radii for radii, _, _ in lines.values()]))
        panel.xaxis.set_major_locator(
            FixedLocator(measured[:: 1 + (len(measured) - 1) // 5].tolist())
        )
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(over)
        if lowest > 0:  # a rise goes with the square of the radius: small ones stay visible
            panel.set(yscale="log", ylim=(lowest / 2, highest * 2))
            panel.yaxis.set_minor_formatter(NullFormatter())
    columns = min(len(metrics), int(width / PANEL))
    titles = fitting(metrics, width / columns - 0.35)
    for panel, title in zip(shown, titles, strict=True):
        panel.set_title(title)
    legend(figure, [handles[name] for name in names], fitting(names, width - 0.5), axes)
    small_print(figure, notes, axes)
    return figure


def _range(lines: Sequence[np.ndarray]) -> tuple[float, float]:
    """Lowest and highest of the finite values; (0, 0): there are none."""
    values = np.concatenate(lines)
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
