"""The colour and the marker of every method, the same in all pictures and in any order."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from ssgd_analysis.files import natural_key
from ssgd_analysis.plots.style import COLOURS, MARKERS, colour, marker

# The place in this table is the look: the methods that are drawn most often differ in colour.
KNOWN = (
    "sgd", "s-sgd", "sam", "wni", "ema", "asam", "wni-2", "alternating",
    "swa", "nso", "smoothout", "anti-pgd", "lpf-sgd", "rwp", "arwp", "m-arwp",
    "lookahead", "entropy-sgd", "sgld", "label-noise-sgd", "gradient-noise", "gsam", "esam",
    "looksam", "gradient-penalty", "adam", "adamw", "muon", "lars", "lamb",
)  # fmt: skip
TINTS = (0.0, 0.45, 0.65, 0.25)  # shares of white, of names that have one colour


@dataclass(frozen=True)
class Look:
    """How one method is drawn.

    Args:
        colour: as ``#rrggbb``.
        marker: of matplotlib.
    """

    colour: str
    marker: str


def method_of(name: str) -> str:
    """The known method that a label or a path begins with; empty if there is none.

    The last folder of a path that names a method counts.

    Example:
        >>> method_of("results/s-sgd-seed0"), method_of("SGD, batch 32"), method_of("mine")
        ('s-sgd', 'sgd', '')
    """
    for part in reversed(name.lower().split("/")):
        found = [
            (match.start(), -len(known), known)
            for known in KNOWN
            if (match := re.search(rf"(?<![a-z0-9+=-]){re.escape(known)}(?![a-z0-9+])", part))
        ]
        if found:
            return min(found)[2]
    return ""


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name; in one picture no two are the same.

    A known method has a fixed look. The other groups of the same method have tints of its colour
    and other markers, unless nothing but this method is shown. An unknown label has the look that
    its letters give, or the next one where that colour is taken. The order of the names does not
    matter.

    Args:
        names: labels of methods or groups, or paths of checkpoints.

    Example:
        >>> found = looks(["SAM", "SGD"])
        >>> found == looks(["SGD", "SAM"]), found["SGD"].colour
        (True, '#000000')
    """
    methods = {name: method_of(name) for name in names}
    one_method = len(set(methods.values())) == 1
    made: dict[str, Look] = {}
    shown: list[tuple[int, int, float]] = []  # places in COLOURS and MARKERS, tint
    for name in sorted(methods, key=lambda name: _rank(name, methods[name])):
        method = methods[name]
        known = bool(method) and not (one_method and made)
        place = KNOWN.index(method) if method else zlib.crc32(name.encode())
        tone = place % len(COLOURS)
        if not known:
            tone = _free(tone, [taken for taken, _, _ in shown], len(COLOURS))
        shape = MARKERS.index(marker(KNOWN.index(method) if known else tone))
        tint = TINTS[sum(hue == tone for hue, _, _ in shown) % len(TINTS)]
        taken = [used for hue, used, _ in shown if hue == tone]
        if len(set(taken)) == len(MARKERS):  # then different from those of the same tint
            taken = [used for hue, used, other in shown if (hue, other) == (tone, tint)]
        shape = _free(shape, taken, len(MARKERS))
        shown.append((tone, shape, tint))
        made[name] = Look(_tinted(colour(tone), tint), MARKERS[shape])
    return {name: made[name] for name in methods}


def _rank(name: str, method: str) -> tuple[int, list[str | int]]:
    """Known methods come first, in the order of the table; numbers in names count as numbers."""
    return KNOWN.index(method) if method else len(KNOWN), natural_key(name)


def _free(wanted: int, taken: list[int], count: int) -> int:
    """The first free place from the wanted one on, or the wanted one if there is none."""
    places = [(wanted + step) % count for step in range(count)]
    return next((place for place in places if place not in taken), wanted)


def _tinted(shade: str, share: float) -> str:
    parts = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + share * (255 - part)):02x}" for part in parts)
