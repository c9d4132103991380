"""Loss along lines through the weights, with bands over directions."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.plots.style import colour, legend_below, panels, short_names, styled


@styled
def loss_bands(
    settings: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    xlabel: str,
    ylabel: str = "train loss",
    rise: bool = False,
) -> Figure:
    """One panel a setting: mean over the directions, band from the 10% to the 90% quantile.

    Args:
        settings: setting → name → (alpha, shape (points,); loss, shape (directions, points)).
        xlabel: what alpha is.
        ylabel: what the values are.
        rise: show the loss minus its lowest mean, so that curves start together.
    """
    figure, axes = panels(1, len(settings), width=4.4, height=3.4, sharey=True)
    for panel, (setting, lines) in zip(axes, settings.items(), strict=True):
        names = short_names(lines, 50)
        for index, (name, (alpha, losses)) in enumerate(zip(names, lines.values(), strict=True)):
            values = losses - losses.mean(axis=0)[np.abs(alpha).argmin()] if rise else losses
            panel.plot(alpha, values.mean(axis=0), color=colour(index), label=name, lw=1.4)
            if len(values) > 1:
                low, high = np.quantile(values, [0.1, 0.9], axis=0)
                panel.fill_between(alpha, low, high, color=colour(index), alpha=0.15, lw=0)
        panel.set(title=setting, xlabel=xlabel)
    axes[0].set_ylabel(ylabel)
    legend_below(figure, axes[0])
    return figure
