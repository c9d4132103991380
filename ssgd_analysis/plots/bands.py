"""Loss and accuracy along lines through the weights, with bands over directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ssgd_analysis.plots.looks import Look, looks
from ssgd_analysis.plots.marks import Mark, label_points
from ssgd_analysis.plots.scale import Scale, loss_scale, round_ones, short_number
from ssgd_analysis.plots.style import (
    OwnAxes,
    in_lines,
    legend,
    page_width,
    panels,
    short_names,
    small_print,
    styled,
)

WIDTH = 3.3  # of a panel, inches
TRAIN, TEST, PREDICTED = "-", "--", "-."


@dataclass(frozen=True)
class Line:
    """Losses and accuracies along one line; ``A`` points, ``R`` directions. NaN: not finite there.

    Args:
        alpha: shape (A,).
        loss: shape (R, A).
        accuracy: shape (R, A), fractions.
        test_loss: of a second split, drawn dashed, shape (R, A).
        test_accuracy: of it, shape (R, A).
        predicted: a loss to compare with, such as a parabola, at evenly spaced points from the
            first to the last alpha, shape (any,).
        predicted_name: for the legend.
        marks: exact points on the line.
        path: (alpha, loss) of the checkpoints of a run, shape (K, 2), joined by a thin line.
    """

    alpha: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None = None
    test_loss: np.ndarray | None = None
    test_accuracy: np.ndarray | None = None
    predicted: np.ndarray | None = None
    predicted_name: str = "predicted"
    marks: Sequence[Mark] = ()
    path: np.ndarray | None = None

    @property
    def losses(self) -> list[np.ndarray]:
        """Of all splits."""
        return [self.loss] if self.test_loss is None else [self.loss, self.test_loss]


@styled
def loss_bands(
    settings: Mapping[str, Mapping[str, Line]],
    *,
    xlabel: str,
    ylabel: str = "train loss",
    accuracy_label: str = "train accuracy (%)",
    notes: Sequence[str] = (),
    axes: OwnAxes = None,
) -> Figure:
    """One panel a setting, below it one of accuracy, if there is any.

    Lines are means over the directions, bands go from the 10% to the 90% quantile; a point that
    is not finite along one of the directions is a gap. Scale and clipping: see
    :func:`ssgd_analysis.plots.scale.loss_scale`.

    Args:
        settings: setting → name → line.
        xlabel: what alpha is.
        ylabel: what the losses are.
        accuracy_label: what the accuracies are.
        notes: lines of small print.
        axes: the user's own: one a setting, then again one a setting if there are accuracies.
    """
    lines = [line for own in settings.values() for line in own.values()]
    rows = 1 + any(line.accuracy is not None for line in lines)
    width = page_width(WIDTH * len(settings)) / len(settings)
    figure, shown = panels(
        rows, len(settings), width=width, height=2.5 - 0.5 * rows, sharex="col", sharey="row",
        axes=axes,
    )  # fmt: skip
    upper, lower = shown[: len(settings)], shown[len(settings) :]
    marked = [mark.loss for line in lines for mark in line.marks]
    scale = loss_scale([part for line in lines for part in line.losses], marked)
    names = list(dict.fromkeys(name for own in settings.values() for name in own))
    look, clipped = looks(names), False
    for panel, (setting, own) in zip(upper, settings.items(), strict=True):
        panel.set_title(setting)
        _axis(panel, scale)
        for name, line in own.items():
            clipped |= _losses(panel, line, scale, look[name].colour)
    for panel, own in zip(lower, settings.values(), strict=False):
        for name, line in own.items():
            _accuracies(panel, line, look[name].colour)
    for panel in lower or upper:
        panel.set_xlabel(in_lines(xlabel, 0.8 * width))
        panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    for panel, text in zip(shown[:: len(settings)], (ylabel, accuracy_label), strict=False):
        panel.set_ylabel(text)
    legend(figure, *_explained(settings, look), axes)
    many = max(len(line.loss) for line in lines)
    band = [f"line: mean, band: 10–90% quantiles of {many} directions"] * (many > 1)
    small_print(figure, [*notes, "; ".join(band + scale.notes("loss", hatched=clipped))], axes)
    if axes is None:
        figure.align_ylabels(shown)
        figure.draw_without_rendering()  # the layout
    for panel, own in zip(upper, settings.values(), strict=True):
        _labels(panel, [line for line in own.values() if line.marks or line.path is not None])
    return figure


def _axis(panel: Axes, scale: Scale) -> None:
    if scale.log:
        panel.set(yscale="log", ylim=(scale.low / 1.25, scale.high * 1.25))
        panel.yaxis.set_major_locator(FixedLocator(round_ones(scale.low, scale.high, 5)))
        panel.yaxis.set_major_formatter(short_number)
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        room = 0.06 * ((scale.high - scale.low) or abs(scale.high) or 1.0)
        panel.set_ylim(scale.low - room, scale.high + room)


def _losses(panel: Axes, line: Line, scale: Scale, own: str) -> bool:
    """Draw them; whether a mean is above the scale, and so hatched."""
    clipped = False
    for values, dashes in zip(line.losses, (TRAIN, TEST), strict=False):
        mean = _band(panel, line.alpha, values, own, dashes)
        above = {"facecolor": "none", "edgecolor": own, "hatch": "//////"}
        _strip(panel, line.alpha, mean > scale.high, 0.96, above)
        clipped |= bool((mean > scale.high).any())
        hole = {"facecolor": "none", "edgecolor": "#bbbbbb", "hatch": "xxxx", "zorder": 0}
        _strip(panel, line.alpha, np.isnan(mean), 0.0, hole)
    if line.predicted is not None:
        even = np.linspace(line.alpha[0], line.alpha[-1], len(line.predicted))
        panel.plot(even, line.predicted, PREDICTED, color=own, lw=0.8)
    if line.path is not None:
        panel.plot(*line.path.T, "-o", color=own, lw=0.5, ms=2, mfc="white", mew=0.5)
    for mark in line.marks:
        if mark.loss is not None:
            panel.plot([mark.alpha], [mark.loss], "o", color=own, ms=3.5, mec="white", mew=0.5)
    return clipped


def _accuracies(panel: Axes, line: Line, own: str) -> None:
    for values, dashes in ((line.accuracy, TRAIN), (line.test_accuracy, TEST)):
        if values is not None:
            _band(panel, line.alpha, 100 * values, own, dashes)
    for mark in line.marks:
        if mark.accuracy is not None:
            position = [mark.alpha], [100 * mark.accuracy]
            panel.plot(*position, "o", color=own, ms=3.5, mec="white", mew=0.5)


def _band(panel: Axes, alpha: np.ndarray, values: np.ndarray, own: str, dashes: str) -> np.ndarray:
    """The mean, NaN where one is not finite; drawn with its band."""
    values = np.where(np.isfinite(values), values, np.nan)
    mean = values.mean(axis=0)
    panel.plot(alpha, mean, dashes, color=own)
    if len(values) > 1:
        low, high = np.quantile(values, [0.1, 0.9], axis=0)
        panel.fill_between(alpha, low, high, color=own, alpha=0.15, lw=0)
    return mean


def _strip(
    panel: Axes, alpha: np.ndarray, where: np.ndarray, bottom: float, look: Mapping[str, Any]
) -> None:
    """A hatched strip up to the panel's top, from the point before to the point after."""
    if where.any():
        wide = where | np.roll(where, 1) & (np.arange(len(where)) > 0)
        wide |= np.roll(where, -1) & (np.arange(len(where)) < len(where) - 1)
        position = panel.get_xaxis_transform()
        panel.fill_between(alpha, bottom, 1, where=wide, transform=position, lw=0, **look)


def _labels(panel: Axes, lines: Sequence[Line]) -> None:
    labelled = [
        (mark.label, mark.alpha, mark.loss)
        for line in lines
        for mark in line.marks
        if mark.loss is not None
    ]
    curves = [np.stack([line.alpha, own.mean(axis=0)], 1) for line in lines for own in line.losses]
    for line in lines:
        if line.path is not None:
            labelled.append(("start", *line.path[0]))
            curves.append(np.asarray(line.path))
    label_points(panel, labelled, colour="black", ground="white", curves=curves)


def _explained(
    settings: Mapping[str, Mapping[str, Line]], look: Mapping[str, Look]
) -> tuple[list[Any], list[str]]:
    """Handles and labels of the legend."""
    short = dict(zip(look, short_names(look, 50), strict=True))
    entries = [(look[name].colour, TRAIN, short[name]) for name in look if name]
    lines = [(name, line) for own in settings.values() for name, line in own.items()]
    if any(line.test_loss is not None for _, line in lines):
        entries += [("#777777", TRAIN, "train"), ("#777777", TEST, "test")]
    for name, line in lines:
        if line.predicted is not None:
            entries.append((look[name].colour, PREDICTED, line.predicted_name))
    entries = list(dict.fromkeys(entries))  # what looks alike and means the same: once
    handles = [Line2D([], [], color=c, ls=dashes, lw=1) for c, dashes, _ in entries]
    return handles, [text for _, _, text in entries]
