"""Training curves: mean over seeds with the range of the seeds."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.style import OwnAxes, legend, panels, short_names, styled


@styled
def training_curves(
    settings: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]],
    *,
    axes: OwnAxes = None,
) -> Figure:
    """Train loss and test accuracy against gradients spent, one row a setting.

    Args:
        settings: setting → method → (gradients, shape (epochs,); train loss and test accuracy,
            shape (seeds, epochs)).
        axes: the user's own, two a setting: loss, accuracy.
    """
    figure, shown = panels(len(settings), 2, width=3.3, axes=axes)
    look = looks(name for methods in settings.values() for name in methods)
    for row, (setting, methods) in enumerate(settings.items()):
        loss, accuracy = shown[2 * row : 2 * row + 2]
        names = short_names(methods, 90)
        for name, method, line in zip(names, methods, methods.values(), strict=True):
            own = look[method].colour
            spent, losses, accuracies = line
            for panel, values in ((loss, losses), (accuracy, 100 * accuracies)):
                panel.plot(spent, values.mean(axis=0), color=own, label=name, lw=1)
                panel.fill_between(
                    spent,
                    values.min(axis=0),
                    values.max(axis=0),
                    color=own,
                    alpha=0.15,
                    lw=0,
                )
        final = np.concatenate([100 * a[:, -1] for _, _, a in methods.values()])
        accuracy.set_ylim(max(0.0, final.min() - 12), min(100.0, final.max() + 2))
        loss.set(title=setting, xlabel="gradients (passes over a minibatch)", ylabel="train loss")
        accuracy.set(
            title=setting, xlabel="gradients (passes over a minibatch)", ylabel="test accuracy (%)"
        )
    legend(figure, *shown[0].get_legend_handles_labels(), axes)
    return figure
