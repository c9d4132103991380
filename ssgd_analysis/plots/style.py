"""What all pictures share: colours, sizes, how they are saved."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssgd_analysis.files import write_atomically

# Okabe and Ito: told apart by colour-blind readers too
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}

styled = mpl.rc_context(STYLE)  # decorates every function that makes a figure


def colour(index: int) -> str:
    """The colour of the n-th thing shown."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """The marker of the n-th thing shown; with its colour it is its own up to 64 things."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def panels(
    rows: int,
    columns: int,
    *,
    width: float = 3.4,
    height: float = 2.7,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, and its axes row by row.

    Args:
        rows: rows of panels.
        columns: panels in a row.
        width: of a panel, inches.
        height: of a panel, inches.
        sharex: all panels have one x axis.
        sharey: all panels have one y axis.
    """
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(axes.flat)


def short_names(names: Iterable[str], limit: int) -> list[str]:
    """Names that fit: without the folders that all share, cut where still too long.

    They are cut at the front, or wherever else they stay distinct; numbers are the last resort.

    Args:
        names: of checkpoints (paths) or methods.
        limit: characters of the longest.
    """
    names = list(names)
    paths = [name.split("/") for name in names]
    shared = 0 if len(paths) > 1 else max(0, len(paths[0]) - 2)
    while len(paths) > 1 and all(len(path) > shared + 1 for path in paths):
        if len({path[shared] for path in paths}) > 1:
            break
        shared += 1
    tails = ["/".join(path[shared:]) for path in paths]
    long = [tail for tail in tails if len(tail) > limit]
    alike = os.path.commonprefix(long)  # noqa: RUF071 (letters are meant)
    differ = max(0, len(alike) - limit // 4)
    half = limit // 2
    for cut in (
        lambda tail: "…" + tail[1 - limit :],
        lambda tail: tail[:half] + "…" + tail[1 + half - limit :],
        lambda tail: "…" + tail[differ : differ + limit - 2] + "…",
    ):
        short = [cut(tail) if len(tail) > limit else tail for tail in tails]
        if len(set(short)) == len(set(names)):
            return short
    return [f"{tail[: limit - 6]}… ({number})" for number, tail in enumerate(tails, start=1)]


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for the whole figure below it, in as many columns as fit its width."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(len(label) for label in labels)
    columns = int(figure.get_figwidth() / (0.55 + 0.075 * longest))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(len(labels), columns, 6))
    )


@styled
def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.pdf``.

    Returns:
        The two paths.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    dpi = max(150, 1000 / figure.get_figwidth())  # small ones are looked at enlarged
    for path in paths:
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=dpi))
    return paths
