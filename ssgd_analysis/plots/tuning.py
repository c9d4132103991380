"""Validation accuracy against what was tuned, the chosen trials ringed."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.style import OwnAxes, legend, panels, styled

DEPTH = 20  # points below the best of a setting: worse trials stand at this edge

Tried = tuple[Sequence[float], Sequence[float], int | None]  # values, accuracies, the chosen


@styled
def tuning_figure(
    settings: Mapping[str, Mapping[str, Mapping[str, Tried]]],
    *,
    log: Mapping[str, bool],
    axes: OwnAxes = None,
) -> Figure:
    """One row of panels a setting, one panel a quantity, one colour an arm.

    Trials more than :data:`DEPTH` points below a setting's best stand at the lower edge.

    Args:
        settings: setting → quantity → arm → (tried values, validation accuracies in [0, 1], place
            of the chosen one).
        log: quantity → whether its axis is logarithmic.
        axes: the user's own, one for each quantity of each setting.
    """
    quantities = list(dict.fromkeys(name for one in settings.values() for name in one))
    figure, subplots = panels(len(settings), len(quantities), height=1.8, sharey="row", axes=axes)
    arms = list(
        dict.fromkeys(arm for one in settings.values() for own in one.values() for arm in own)
    )
    looked, handles = looks(arms), {}
    for row, (setting, found) in enumerate(settings.items()):
        tried = [a for own in found.values() for _, some, _ in own.values() for a in some]
        floor = 100 * max(tried, default=0.0) - DEPTH
        for column, quantity in enumerate(quantities):
            panel = subplots[row * len(quantities) + column]
            for arm, (values, accuracies, chosen) in found.get(quantity, {}).items():
                look: dict[str, Any] = {"color": looked[arm].colour, "ls": ""}
                percent = [max(100 * accuracy, floor) for accuracy in accuracies]
                (handles[arm],) = panel.plot(values, percent, looked[arm].marker, ms=3, **look)
                if chosen is not None:
                    ring: dict[str, Any] = {"marker": "o", "mfc": "none", "ms": 8, "mew": 1.2}
                    panel.plot([values[chosen]], [percent[chosen]], **ring, **look)
            if log.get(quantity):
                panel.set_xscale("log")
                panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
                panel.xaxis.set_major_formatter("{x:g}")
                panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_locator(MaxNLocator(4))
            panel.set(title=setting, xlabel=quantity.replace("_", " "))
            if column == 0:
                panel.set_ylabel("validation accuracy (%)")
    present = [arm for arm in arms if arm in handles]
    legend(figure, [handles[arm] for arm in present], present, axes)
    return figure
