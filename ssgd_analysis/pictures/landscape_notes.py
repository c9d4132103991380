"""The small print of a landscape: what was done, and what the picture cannot show."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssgd_analysis.pictures.paper import unequal_losses
from ssgd_analysis.plots.style import short_names
from ssgd_analysis.plots.words import outside, percent, visible_curvature

NORMALIZED = {
    "filter": "scaled to each filter's norm",
    "layer": "scaled to each layer's norm",
    "none": "",
}
MOVED = {
    "zero": "biases and norm layers held",
    "keep": "biases and norm layers moved too",
}


def landscape_notes(
    record: dict[str, Any], arrays: Mapping[str, np.ndarray], *, first_of: int = 0
) -> list[str]:
    """Settings, then facts about the directions and the interpolated points.

    Args:
        record: as in ``landscape.json``.
        arrays: as in ``landscape.npz``.
        first_of: only the first of so many draws is shown; 0: all are.

    Returns:
        Lines for the small print.
    """
    settings = record["settings"]
    size = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(
        str(len(arrays[n])) for n in ("alpha", "beta") if n in arrays
    )
    split = "train and test" if record["split"] == "both" else record["split"]
    what = ["loss" if record["loss"] is None else str(record["loss"]), f"{split} split"]
    what += [_examples(record)]
    parts = [_directions(settings), f"{size} points"]
    if settings["repeats"] > 1:
        parts.append(f"{settings['repeats']} draws" + ", the first shown" * bool(first_of))
    if record["batchnorm"]:
        parts.append(f"BatchNorm {'frozen' if settings['bn'] == 'frozen' else 'recalibrated'}")
    if settings["precision"] != "fp32":
        parts.append(settings["precision"])
    parts.append(f"seed {settings['seed']}")
    more = [
        _caveat(record),
        _share(record),
        _variance(record),
        _outside(record),
        _interpolated(record, arrays),
    ]
    return [_numbers(record),
            "; ".join([" of the ".join(what[:2]) + "".join(f", {w}" for w in what[2:]), *parts]),
            "; ".join(text for text in more if text)]  # fmt: skip


def _numbers(record: dict[str, Any]) -> str:
    """The checkpoints whose numbers stand in a plane through several."""
    if record["settings"]["dims"] == 1 or record["settings"]["directions"] != "between":
        return ""
    names = short_names([mark["label"] for mark in record["grids"][0]["marks"]], 60)
    return "; ".join(
        f"{number}:\N{NO-BREAK SPACE}{name}" for number, name in enumerate(names, start=1)
    )


def _examples(record: dict[str, Any]) -> str:
    """How many the losses are means over."""
    count = f"{record['n_samples']:,}"
    if record["split"] != "both":
        return f"{count} examples"
    test = record["n_test_samples"]
    return f"{count} train examples" if test is None else f"{count} train, {test:,} test examples"


def _directions(settings: dict[str, Any]) -> str:
    plane = settings["dims"] == 2
    names = {
        "random": "random directions" if plane or settings["repeats"] > 1 else "a random direction",
        "eigen": "top Hessian eigenvectors" if plane else "top Hessian eigenvector",
        "trajectory": "principal directions of the run"
        if plane
        else "principal direction of the run",
        "between": "plane through three checkpoints" if plane else "line through two checkpoints",
        "gradient": "gradient",
        "vectors": "given vectors" if plane else "given vector",
    }
    words = [names[settings["directions"]], NORMALIZED[settings["normalize"]]]
    if settings["directions"] != "between" and settings["biases"]:
        words.append(MOVED[settings["biases"]])
    return ", ".join(word for word in words if word)


def _list(values: list[float]) -> str:
    """Percentages in order, or their range where they are many."""
    texts = [percent(value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    if len(texts) > 4:
        return f"{percent(min(values))} to {percent(max(values))}"
    return ", ".join(texts)


def _caveat(record: dict[str, Any]) -> str:
    """Whether the checkpoints fit unequally well."""
    centres = {
        grid["checkpoint"]: mark.get("loss")
        for grid in record["grids"]
        for mark in grid.get("marks") or []
        if not (mark["alpha"] or mark.get("beta"))
    }
    names = short_names(list(centres), 30) if centres else []
    return unequal_losses(dict(zip(names, centres.values(), strict=True)))


def _share(record: dict[str, Any]) -> str:
    """The share of the largest curvature that planes show."""
    shares = [grid["share"] for grid in record["grids"] if grid.get("share") is not None]
    if len(record["grids"]) > 1 and shares:
        return f"these planes see {_list(shares)} of λ_max"
    texts = {
        visible_curvature(grid, plane=record["settings"]["dims"] == 2) for grid in record["grids"]
    }
    return texts.pop() if len(texts) == 1 else ""


def _variance(record: dict[str, Any]) -> str:
    """How much of its path each of several runs' axes explain; of one run the axes say it."""
    grids = [grid for grid in record["grids"] if grid.get("explained_variance")]
    if len(record["grids"]) == 1 or not grids:
        return ""
    return f"axes explain {_list([sum(g['explained_variance']) for g in grids])} of the paths"


def _outside(record: dict[str, Any]) -> str:
    """How far the paths lie outside the line or plane."""
    distances = [far for far in map(outside, record["grids"]) if far is not None]
    what = "plane" if record["settings"]["dims"] == 2 else "line"
    return (
        f"checkpoints lie up to {max(distances):.2g} (L2) outside of the {what}"
        if distances
        else ""
    )


def _interpolated(record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    if "measured" not in arrays:
        return ""
    measured = arrays["measured"]
    text = f"interpolated from {int(measured.sum()):,} of {measured.size:,} points"
    errors = [grid["error"] for grid in record["grids"] if grid.get("error")]
    finite = [e for e in errors if e["rms"] is not None and math.isfinite(e["rms"])]
    if not finite:
        return text
    rms, most = max(e["rms"] for e in finite), max(e["max"] for e in finite)
    count = sum(e["points"] for e in finite)
    return f"{text}, rms error {rms:.2g}, largest seen {most:.2g} at {count:,} points held out"
