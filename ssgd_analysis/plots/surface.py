"""An interactive landscape in one self-contained HTML file."""

import json
import math
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from ssgd_analysis.files import jsonable, write_text
from ssgd_analysis.plots.looks import looks
from ssgd_analysis.plots.scale import LARGE
from ssgd_analysis.plots.style import short_names
from ssgd_analysis.plots.words import axis_unit, outside, percent, visible_curvature

DIGITS = 9  # of the numbers in the file; the arrays hold all


def surface_html(record: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> Path:
    """A surface to turn and a contour plot beside it, or lines; needs no network.

    Buttons switch between checkpoints, draws, train and test, linear and logarithmic; colours
    mean the same loss in all of them.

    Args:
        record: of the landscape, as in ``landscape.json``.
        arrays: of the landscape, as in ``landscape.npz``.
        path: the file to write.

    Returns:
        The path.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    here = resources.files("ssgd_analysis.plots")
    page = here.joinpath("surface.html").read_text(encoding="utf-8")
    content = json.dumps(_content(record, arrays), ensure_ascii=False, allow_nan=False)
    parts = {
        "CONTENT": content.replace("<", "\\u003c"),  # no name can end the script
        "PLOTLY": get_plotlyjs(),
        "SCRIPT": here.joinpath("surface.js").read_text(encoding="utf-8"),
    }
    # in one pass, so that inserted text is not searched for placeholders
    write_text(path, re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], page))
    return path


def _content(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Everything the page shows, as JSON."""
    split = record["split"]
    layers = [("loss", "accuracy", "train" if split == "both" else split)]
    if "test_loss" in arrays:
        layers.append(("test_loss", "test_accuracy", "test"))
    shape = tuple(len(arrays[axis]) for axis in ("alpha", "beta") if axis in arrays)
    flat = {
        name: values.reshape(-1, *shape)
        for name, values in arrays.items()
        if name not in ("alpha", "beta")
    }
    full = list(dict.fromkeys(str(grid["checkpoint"]) for grid in record["grids"]))
    look = looks(full)
    repeats = sorted({grid["repeat"] for grid in record["grids"]})
    ranges = _ranges([flat[loss] for loss, _, _ in layers])
    return {
        "alpha": arrays["alpha"].tolist(),
        "beta": arrays["beta"].tolist() if "beta" in arrays else None,
        "units": {axis: axis_unit(record, axis) for axis in ("alpha", "beta")},
        "layers": [dict(zip(("loss", "accuracy", "name"), layer, strict=True)) for layer in layers],
        "checkpoints": [
            {"name": short, "full": name, "colour": look[name].colour}
            for short, name in zip(short_names(full, 28), full, strict=True)
        ],
        "repeats": repeats,
        "grids": [
            {
                "checkpoint": full.index(str(grid["checkpoint"])),
                "repeat": repeats.index(grid["repeat"]),
                "values": {name: _short(values[number]) for name, values in flat.items()},
                "marks": _marks(grid),
                "path": jsonable(grid.get("path")),
                "slopes": jsonable(grid.get("slopes")),
                "curvatures": jsonable(grid.get("curvatures")),
                "facts": _facts(grid, flat["loss"][number].size, plane="beta" in arrays),
            }
            for number, grid in enumerate(record["grids"])
        ],
        "ranges": ranges,
        "log": ranges["log"] is not None
        and min(float(np.nanmin(flat[loss])) for loss, _, _ in layers) > 0
        and ranges["log"][1] - ranges["log"][0] > math.log10(LARGE),
        "settings": _settings(record),
        "command": record.get("command", ""),
    }


def _short(values: np.ndarray) -> Any:
    """Nested lists of numbers with few digits, ``None`` where not finite."""
    if values.dtype == bool:
        return values.tolist()
    rounded = [float(f"{value:.{DIGITS}g}") for value in values.ravel().tolist()]
    return jsonable(np.reshape(rounded, values.shape))


def _ranges(losses: Sequence[np.ndarray]) -> dict[str, list[float] | None]:
    """The one scale of all surfaces; the logarithmic one in powers of ten, if it exists."""
    every = np.concatenate([loss.ravel() for loss in losses]).astype(np.float64)
    finite = every[np.isfinite(every)]
    positive = np.log10(finite[finite > 0])

    def ends(values: np.ndarray) -> list[float]:
        low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
        if low > high:
            return [0.0, 1.0]
        if low == high:  # a scale needs a length
            return [low - 1e-3 * (abs(low) or 1), high + 1e-3 * (abs(high) or 1)]
        return [low, high]

    return {"linear": ends(finite), "log": ends(positive) if positive.size else None}


def _marks(grid: dict[str, Any]) -> Any:
    """The grid's marks, before them the start of its path."""
    marks = list(grid.get("marks") or [])
    path = grid.get("path")
    if path and len(path["alpha"]) > 1:
        axes = ("alpha", "beta", "loss")
        marks.insert(0, {"label": "start", **{a: path[a][0] for a in axes if path.get(a)}})
    names = short_names([str(mark["label"]) for mark in marks], 28) if marks else []
    return jsonable([{**mark, "name": name} for mark, name in zip(marks, names, strict=True)])


def _facts(grid: dict[str, Any], points: int, *, plane: bool) -> list[str]:
    """What the picture cannot show by itself, one sentence each."""
    facts = [visible_curvature(grid, plane=plane)] if visible_curvature(grid, plane=plane) else []
    if facts and grid.get("share") is not None and grid.get("lambda_max"):
        facts[0] += f" ({grid['lambda_max']['value']:.3g})"
    curvatures = grid.get("curvatures") or []
    if curvatures and None not in curvatures:
        along = ", ".join(
            f"along {axis} {value:.3g}" for axis, value in zip("αβ", curvatures, strict=False)
        )
        facts.append(f"curvature {along}")
    if grid.get("explained_variance"):
        parts = " + ".join(map(percent, grid["explained_variance"]))
        hold = "axes hold" if plane else "axis holds"
        facts.append(f"the {hold} {parts} of the path's variance")
    if outside(grid) is not None:
        thing = "plane" if plane else "line"
        facts.append(f"its checkpoints lie up to {outside(grid):.2g} (L2) outside of the {thing}")
    if grid.get("holes"):
        facts.append(f"{grid['holes']} of {points} points are holes: their loss is not finite")
    if grid.get("error") and grid["measured"] < points:
        error = grid["error"]
        facts.append(
            f"{grid['measured']} of {points} points are measured, the others interpolated"
            f" (error of the loss: rms {error['rms']:.2g}, at most {error['max']:.2g}"
            f" at {error['points']} points held out)"
        )
    return facts


def _settings(record: dict[str, Any]) -> str:
    """The settings in one line."""
    own = dict(record.get("settings") or {})
    if not record.get("batchnorm", True):  # then nothing is frozen or recalibrated
        own.pop("bn", None)
    rest = ("split", "samples", "n_samples", "n_test_samples", "model", "data", "loss", "dtype",
            "fingerprint")  # fmt: skip
    own.update({name: record[name] for name in rest if name in record})
    versions = record.get("versions") or {}
    shown = [f"{name} {value}" for name, value in own.items() if value is not None]
    return " · ".join([*shown, *(f"{name} {value}" for name, value in versions.items())])
