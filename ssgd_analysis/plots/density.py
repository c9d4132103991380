"""The spectral density, with its top eigenvalues."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.style import OwnAxes, legend, panels, short_names, small_print, styled

Curve = tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[float]]


@styled
def density_figure(
    densities: Mapping[str, Curve],
    *,
    operator: str = "Hessian",
    notes: Sequence[str] = (),
    axes: OwnAxes = None,
) -> Figure:
    """One panel for each checkpoint, logarithmic density, band of one standard error.

    Args:
        densities: name → (grid, density, stderr, each shape (G,); top eigenvalues).
        operator: whose spectrum it is.
        notes: lines of small print.
        axes: the user's own, one a checkpoint.
    """
    figure, shown = panels(len(densities), 1, width=4.6, height=2.0, sharex=True, axes=axes)
    names, look = short_names(densities, 70), looks(densities)
    for panel, name, (full, curve) in zip(shown, names, densities.items(), strict=True):
        floor, top, own = _floor(curve), curve[3], look[full].colour
        _band(panel, curve, floor, own)
        at_the_top: Any = {"transform": panel.get_xaxis_transform(), "color": own, "ms": 6}
        panel.plot(top, [0.95] * len(top), "|", **at_the_top)
        panel.set(yscale="log", ylim=(floor, curve[1].max() * 3), title=name, ylabel="density")
    shown[-1].set_xlabel(f"eigenvalue of the {operator} (ticks: the largest)")
    small_print(figure, notes, axes)
    return figure


@styled
def density_overlay(
    densities: Mapping[str, Curve],
    *,
    operator: str = "Hessian",
    notes: Sequence[str] = (),
    axes: OwnAxes = None,
) -> Figure:
    """All checkpoints in one panel, each density with its top eigenvalues as ticks of its colour.

    Args:
        densities: as in :func:`density_figure`.
        operator: whose spectra they are.
        notes: lines of small print.
        axes: the user's own.
    """
    figure, (panel,) = panels(1, 1, width=4.6, height=2.4, axes=axes)
    floor = min(map(_floor, densities.values()))
    names, look = short_names(densities, 40), looks(densities)
    for row, (name, (full, curve)) in enumerate(
        zip(names, densities.items(), strict=True), start=1
    ):
        own = look[full].colour
        _band(panel, curve, floor, own, label=name)
        height = floor * 3.0**row  # one row of ticks below the other
        panel.plot(curve[3], [height] * len(curve[3]), "|", color=own, ms=8)
    highest = max(curve[1].max() for curve in densities.values())
    panel.set(yscale="log", ylim=(floor, highest * 3), ylabel="density")
    panel.set_xlabel(f"eigenvalue of the {operator} (ticks: the largest)")
    legend(figure, *panel.get_legend_handles_labels(), axes)
    small_print(figure, notes, axes)
    return figure


def _floor(curve: Curve) -> float:
    """The lowest density that is drawn."""
    return max(float(curve[1].max()) * 1e-7, 1e-12)


def _band(panel: Axes, curve: Curve, floor: float, shade: str, label: str | None = None) -> None:
    grid, density, stderr, _ = curve
    low, high = np.maximum(density - stderr, floor), np.maximum(density + stderr, floor)
    panel.fill_between(grid, low, high, color=shade, alpha=0.25, lw=0)
    panel.plot(grid, np.maximum(density, floor), color=shade, lw=1, label=label)
