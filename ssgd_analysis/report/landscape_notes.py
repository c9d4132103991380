"""The small print of a landscape: what was done, and what the picture cannot show."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """Settings, then what is known of the directions and of interpolated points.

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
    what = ["loss" if record.get("loss") is None else str(record["loss"]), f"{split} split"]
    of = "train examples" if record["split"] == "both" else "examples"
    what += [f"{record['n_samples']:,} {of}"] if record.get("n_samples") else []
    how = [_directions(settings), f"{size} points"]
    if settings["repeats"] > 1:
        how.append(f"{settings['repeats']} draws" + ", the first shown" * bool(first_of))
    how.append(f"BatchNorm {'frozen' if settings['bn'] == 'frozen' else 'recalibrated'}")
    if settings.get("precision", "fp32") != "fp32":
        how.append(settings["precision"])
    how.append(f"seed {settings['seed']}")
    more = [_sight(record), _variance(record), _interpolated(record, arrays)]
    return ["; ".join([" of the ".join(what[:2]) + "".join(f", {w}" for w in what[2:]), *how]),
            "; ".join(text for text in more if text)]  # fmt: skip


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
    if settings["directions"] != "between" and settings.get("biases"):
        words.append(MOVED[settings["biases"]])
    return ", ".join(word for word in words if word)


def _list(values: list[float]) -> str:
    """Percentages in order, or their range where they are many."""
    texts = [_percent(value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    if len(texts) > 4:
        return f"{_percent(min(values))} to {_percent(max(values))}"
    return ", ".join(texts)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%" if value >= 0.0995 else f"{100 * value:.2g}%"


def _sight(record: dict[str, Any]) -> str:
    """The share of the largest curvature that is seen."""
    shares = [grid.get("share") for grid in record["grids"]]
    known = [share for share in shares if share is not None]
    thing = "plane" if record["settings"]["dims"] == 2 else "line"
    if not known:
        notes = {grid.get("share_note") for grid in record["grids"]} - {None}
        return f"share of λ_max: {notes.pop()}" if len(notes) == 1 and thing == "plane" else ""
    if len(shares) == 1:
        return f"this {thing} sees {_list(known)} of λ_max"
    return f"these {thing}s see {_list(known)} of λ_max"


def _variance(record: dict[str, Any]) -> str:
    """How much of its path each of several runs' axes explain; of one run the axes say it."""
    grids = [grid for grid in record["grids"] if grid.get("explained_variance")]
    if len(record["grids"]) == 1 or not grids:
        return ""
    return f"axes explain {_list([sum(g['explained_variance']) for g in grids])} of the paths"


def _interpolated(record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    if "measured" not in arrays:
        return ""
    measured = arrays["measured"]
    text = f"interpolated from {int(measured.sum()):,} of {measured.size:,} points"
    errors = [grid["error"] for grid in record["grids"] if grid.get("error")]
    known = [e for e in errors if e["rms"] is not None and math.isfinite(e["rms"])]
    if not known:
        return text
    rms, most = max(e["rms"] for e in known), max(e["max"] for e in known)
    return f"{text}, rms error {rms:.2g}, largest seen {most:.2g}"
