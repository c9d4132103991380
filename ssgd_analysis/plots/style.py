"""What all pictures share: the style, colours, panels, legends, small print."""

import math
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from ssgd_analysis.errors import InputError

COLUMN, DOUBLE = 3.3, 6.9  # widths of a paper's column and page, inches
LINE = 0.135  # height of a line of text with its gap, inches
SMALL = 6.0  # size of the small print, points: the least that journals ask for
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STYLE = mpl.rc_params_from_file(
    Path(__file__).with_name("ssgd.mplstyle"), use_default_template=False
)
COLOURS: list[str] = STYLE["axes.prop_cycle"].by_key()["color"]

OwnAxes = Axes | Sequence[Axes] | np.ndarray | None  # a user's: what every picture takes

styled = mpl.rc_context(STYLE)  # decorates every function that makes or saves a figure


def colour(index: int) -> str:
    """The colour of the n-th thing shown."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """The marker of the n-th thing shown; with its colour it is its own up to 64 things."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


@dataclass(frozen=True)
class Paper:
    """What pictures are drawn for.

    Args:
        width: of each figure, inches; ``None``: as wide as its panels are by default.
        title: above each figure; may be empty.
        small_print: whether settings and caveats stand at the foot.
    """

    width: float | None = None
    title: str = ""
    small_print: bool = True


_PAPER: ContextVar[Paper | None] = ContextVar("paper", default=None)


@contextmanager
def on_paper(chosen: Paper) -> Iterator[None]:
    """Inside, all figures are drawn for this paper; a user's own axes are not changed by it."""
    before = _PAPER.set(chosen)
    try:
        yield
    finally:
        _PAPER.reset(before)


def page_width(default: float) -> float:
    """The width of a figure in inches: that of the paper, or else the default."""
    return paper().width or default


def paper() -> Paper:
    """The paper that is drawn for."""
    return _PAPER.get() or Paper()


def headline(figure: Figure, text: str) -> None:
    """A line above all panels, below one that is there already; the figure grows by its height."""
    lines = broken(text, figure.get_figwidth() - 0.2)
    figure.set_figheight(figure.get_figheight() + 0.15 * len(lines))
    figure.suptitle("\n".join([*filter(None, [figure.get_suptitle()]), *lines]), fontsize=7)


def panels(
    rows: int,
    columns: int,
    *,
    used: Sequence[int] | None = None,
    width: float = 2.65,
    height: float = 2.1,
    sharex: bool | str = False,
    sharey: bool | str = False,
    axes: OwnAxes = None,
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, or the user's own axes.

    Args:
        rows: rows of panels.
        columns: panels in a row.
        used: the panels that are needed, counted row by row; default: all.
        width: of a panel, inches.
        height: of a panel, inches.
        sharex: all panels (``"col"``: those of a column) have one x axis.
        sharey: all panels (``"row"``: those of a row) have one y axis.
        axes: the user's own: as many as are used. Then nothing else of their figure changes.

    Returns:
        The figure, and the used axes row by row.

    Raises:
        InputError: ``axes`` are no axes, or not as many as panels.
    """
    used = range(rows * columns) if used is None else used
    if axes is not None:
        given = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, object)))
        if not all(isinstance(one, Axes) for one in given):
            raise InputError("axes: give matplotlib Axes, one for each panel")
        if len(given) != len(used):
            raise InputError(f"axes: {len(given)} given, but this picture has {len(used)} panel(s)")
        return given[0].figure.figure, given  # of a subfigure: the whole figure
    size = paper().width or width * columns, height * rows
    figure = Figure(figsize=size, layout="constrained")
    if paper().title:
        headline(figure, paper().title)
    share: Any = {"sharex": sharex, "sharey": sharey}
    made = figure.subplots(rows, columns, squeeze=False, **share).flat
    for index, empty in enumerate(made):
        if index not in used:
            empty.remove()
    return figure, [made[index] for index in used]


def inches(text: str, size: float = 7) -> float:
    """Width of a text at a size in points."""
    return TextPath((0, 0), text, size=size).get_extents().width / 72 if text.strip() else 0.0


def legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], axes: OwnAxes = None
) -> None:
    """One legend below all panels, the figure grows by its height; or inside a user's first axes.

    Args:
        figure: of all panels.
        handles: what is explained.
        labels: its names.
        axes: the user's own, or ``None``.
    """
    if not handles:
        return
    if axes is not None:
        panels(1, 1, axes=np.ravel(np.asarray(axes, object))[:1])[1][0].legend(handles, labels)
        return
    columns = int((figure.get_figwidth() - 0.1) / (0.45 + max(map(inches, labels))))
    columns = max(1, min(len(labels), columns))
    figure.set_figheight(figure.get_figheight() + LINE * math.ceil(len(labels) / columns) + 0.1)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def small_print(figure: Figure, lines: Sequence[str], axes: OwnAxes = None) -> None:
    """Small grey lines at the foot of a figure, which grows by their height; call it last.

    Args:
        figure: of all panels.
        lines: each begins a new line, and is broken where it is too wide.
        axes: the user's own: the lines stand below the last of them; or ``None``.
    """
    if axes is None and not paper().small_print:
        return
    look: Any = {"size": SMALL, "color": "#666666", "va": "bottom", "linespacing": 1.1}
    width = figure.get_figwidth()
    if axes is not None:
        last = np.ravel(np.asarray(axes, object))[-1]
        width = last.get_window_extent().width / figure.dpi
    lines = [part for line in lines if line for part in broken(line, width - 0.1, SMALL)]
    if not lines:
        return
    text = "\n".join(lines)
    if axes is not None:
        below = {"xycoords": "axes fraction", "textcoords": "offset points"}
        label = last.xaxis.get_tightbbox()  # with its ticks; None: nothing is there
        depth = last.get_window_extent().y0 - label.y0 if label is not None else 0.0
        offset = (0, -72 * max(0.0, depth) / figure.dpi - 4)
        last.annotate(text, (0, 0), offset, **{**look, "va": "top"}, **below)
        return
    depth = 0.1 * len(lines) + 0.06
    height = figure.get_figheight() + depth
    figure.set_figheight(height)
    low = depth / height
    for found in figure.legends:  # stands on the small print, and the panels above both
        found.set_bbox_to_anchor((0, low, 1, 1 - low), transform=figure.transFigure)
        low += found.get_window_extent().height / figure.bbox.height
    figure.get_layout_engine().set(rect=(0, low, 1, 1 - low))  # type: ignore[union-attr, call-arg]
    figure.text(0.05 / width, 0.03 / height, text, **look)


def broken(line: str, room: float, size: float = 7) -> list[str]:
    """A line in as many as it needs to fit into a room in inches."""
    # on screen letters are up to 4% wider than in print
    letters = max(16, int(0.95 * len(line) * room / max(inches(line, size), 1e-9)))
    return textwrap.wrap(line, letters - 2, break_on_hyphens=False)  # letters differ in width


def in_lines(label: str, room: float) -> str:
    """A label in lines of about one length that fit into a room in inches."""
    lines = broken(label, room)
    return "\n".join(textwrap.wrap(label, len(label) // len(lines) + 4)) if lines[1:] else label


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
    runs = [path[-1] for path in paths]
    if len(set(runs)) == len(paths) > 1 and all(name.startswith("/") for name in names):
        tails = runs  # of other trees, too: a whole absolute path says little
    long = [tail for tail in tails if len(tail) > limit]
    differ, parts = _differing(long)
    room = limit - 2 - max(map(len, parts.values()), default=0)
    half, last = limit // 2, max(map(len, tails), default=0)
    firsts = [max(1, differ - max(0, room) // 2), *range(differ, last)]
    cuts: list[Callable[[str], str]] = [
        lambda tail: "…" + tail[1 - limit :],
        lambda tail: tail[:half] + "…" + tail[1 + half - limit :],
        *(partial(_window, first=first, room=limit - 2) for first in firsts),
    ]
    found = []
    for cut in cuts:
        short = [cut(tail) if len(tail) > limit else tail for tail in tails]
        if len(set(short)) == len(set(names)):
            found.append(short)
    for short in found:  # every difference is visible
        if all(parts.get(tail, "") in name for tail, name in zip(tails, short, strict=True)):
            return short
    if found:
        return found[0]
    return [f"{tail[: limit - 6]}… ({number})" for number, tail in enumerate(tails, start=1)]


def _window(name: str, first: int, room: int) -> str:
    return f"…{name[first : first + room]}…"


def _differing(names: Sequence[str]) -> tuple[int, dict[str, str]]:
    """Where names begin to differ, and what each has between the like ends: whole words."""
    if len(set(names)) < 2:
        return 0, {}
    backwards = [name[::-1] for name in names]
    start, end = (len(os.path.commonprefix(own)) for own in (names, backwards))  # noqa: RUF071
    end = min(end, min(map(len, names)) - start)
    while start and (names[0][start - 1].isalnum() or names[0][start - 1] == "."):
        start -= 1
    while end and names[0][-end].isalnum():
        end -= 1
    return start, {name: name[start : len(name) - end] for name in names}


def fitting_names(names: Iterable[str], room: float, size: float = 7) -> list[str]:
    """Short names, each at most as wide as a room.

    Args:
        names: of checkpoints (paths) or methods.
        room: inches; less than what 8 letters need gives 8 letters.
        size: of the letters, points.
    """
    names = list(names)
    for limit in range(max(map(len, names), default=8), 7, -1):
        short = short_names(names, limit)
        if max((inches(name, size) for name in short), default=0.0) <= room:
            return short
    return short_names(names, 8)
