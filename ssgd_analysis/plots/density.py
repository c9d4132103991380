"""The spectral density, with its top eigenvalues."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.plots.style import OwnAxes, colour, legend, panels, short_names, styled


@styled
def density_figure(
    densities: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[float]]],
    *,
    operator: str = "Hessian",
    axes: OwnAxes = None,
) -> Figure:
    """One panel for each checkpoint, logarithmic density, band of one standard error.

    Args:
        densities: name → (grid, density, stderr, each shape (G,); top eigenvalues).
        operator: whose spectrum it is.
        axes: the user's own, one a checkpoint.
    """
    figure, shown = panels(len(densities), 1, width=4.6, height=2.0, sharex=True, axes=axes)
    names = short_names(densities, 70)
    for panel, name, (grid, density, stderr, top) in zip(
        shown, names, densities.values(), strict=True
    ):
        floor = max(density.max() * 1e-7, 1e-12)
        panel.fill_between(
            grid,
            np.maximum(density - stderr, floor),
            np.maximum(density + stderr, floor),
            color=colour(1),
            alpha=0.25,
            lw=0,
        )
        panel.plot(grid, np.maximum(density, floor), color=colour(1), lw=1)
        panel.plot(top, [floor * 3] * len(top), "|", color=colour(2), ms=8, label="top eigenvalues")
        panel.set(yscale="log", ylim=(floor, density.max() * 3), title=name, ylabel="density")
    shown[-1].set_xlabel(f"eigenvalue of the {operator}")
    legend(figure, *shown[0].get_legend_handles_labels(), axes)
    return figure
