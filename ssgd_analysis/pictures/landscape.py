"""Pictures of a landscape from its record and arrays alone, so that they can be drawn again."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.files import jsonable
from ssgd_analysis.pictures.landscape_notes import landscape_notes
from ssgd_analysis.pictures.paper import paper_of
from ssgd_analysis.plots import Line, Mark, Plane, loss_bands, loss_contours, save_figure
from ssgd_analysis.plots.contours import title_room
from ssgd_analysis.plots.static_surface import surface_figure
from ssgd_analysis.plots.style import fitting_names, inches, on_paper, short_names
from ssgd_analysis.plots.words import axis_unit, percent
from ssgd_analysis.settings.pictures import PictureSettings

DENSE = 201  # places at which a predicted parabola is drawn
MOST = 9  # planes of which all draws are shown; of more the first one

Arrays = Mapping[str, np.ndarray]


def landscape_pictures(
    record: dict[str, Any],
    arrays: Arrays,
    stem: Path,
    *,
    style: PictureSettings | None = None,
    surface: bool = False,
) -> list[Path]:
    """Draw lines or planes; of a plane of eigenvectors also the cuts along its axes.

    The same record and arrays give the same bytes. Settings stand in the small print and in the
    files' metadata.

    Args:
        record: as in ``landscape.json``.
        arrays: as in ``landscape.npz``.
        stem: path of the pictures without the ending.
        style: how they look.
        surface: also draw planes as surfaces.

    Returns:
        Paths (PNG, PDF): ``stem``, ``stem-axes`` for eigenvectors in a plane, ``stem-surface``.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    record = jsonable(record)  # with null for NaN, as a reader of the file gets it
    names = _names(record)
    settings = {key: value for key, value in record.items() if key not in ("out", "pictures")}
    title = f"Loss landscape: {', '.join(record['checkpoints'])}"
    plane = record["settings"]["dims"] == 2
    with on_paper(paper_of(style)):
        figures = {"": (_planes if plane else _lines)(record, arrays, names)}
        if plane and record["settings"]["directions"] == "eigen":
            figures["-axes"] = _cuts(record, arrays, names)
        if plane and surface:
            figures["-surface"] = _surfaces(record, arrays, names)
    return [
        path
        for ending, figure in figures.items()
        for path in save_figure(
            figure, stem.with_name(stem.name + ending), title=title, record=settings
        )
    ]


def landscape_axes(record: dict[str, Any], arrays: Arrays, axes: Any = None) -> Any:
    """Draw the losses of all lines, or of the first plane, into one panel.

    Args:
        record: as in ``landscape.json``.
        arrays: as in ``landscape.npz``.
        axes: matplotlib axes; ``None``: a new figure.

    Returns:
        The axes.
    """
    record = jsonable(record)
    losses = {name: array for name, array in arrays.items() if "accuracy" not in name}
    names, draw = _names(record), _lines
    if record["settings"]["dims"] == 2:
        names, draw = names[:1], _planes
        between = record["settings"]["directions"] == "between"
        shown = record["checkpoints"] if between else record["checkpoints"][:1]
        record = record | {"grids": record["grids"][:1], "checkpoints": shown}
        size = len(arrays["alpha"]), len(arrays["beta"])
        losses = {name: arrays[name] for name in ("alpha", "beta")}
        losses["loss"] = arrays["loss"].reshape(-1, *size)[0]
    figure = draw(record, losses, names, axes)
    return figure.axes[0] if axes is None else axes


def _names(record: dict[str, Any]) -> list[str]:
    """Of the checkpoints that have grids of their own; empty for what lies between them."""
    if record["settings"]["directions"] == "between":
        return [""]
    return short_names(record["checkpoints"], 50)


def _values(arrays: Arrays, name: str, dims: int, count: int) -> np.ndarray | None:
    """Shape (checkpoints, repeats, points…), or ``None`` where there are no values."""
    values = arrays.get(name)
    if values is None or (not np.isfinite(values).any() and "accuracy" in name):
        return None
    return values.reshape(count, -1, *values.shape[values.ndim - dims :])


def _words(record: dict[str, Any]) -> dict[str, str]:
    """What losses and accuracies are called."""
    split = "" if record["split"] == "both" else f"{record['split']} "
    return {"loss": f"{split}loss", "accuracy": f"{split}accuracy (%)"}


def _axis(record: dict[str, Any], index: int) -> str:
    """What a coordinate is, with its unit."""
    directions, unit = record["settings"]["directions"], axis_unit(record, ("alpha", "beta")[index])
    name = "αβ"[index]
    if directions == "eigen":
        name = f"eigenvector {index + 1}"
    elif directions == "trajectory":
        name = f"PC {index + 1}"
        if len(record["grids"]) == 1:
            name += f" ({percent(record['grids'][0]['explained_variance'][index])})"
    return f"{name}, {unit}"


def _marks(record: dict[str, Any], facts: dict[str, Any]) -> list[Mark]:
    """The marks of a grid; one by itself needs no name where the panel or the line has it.

    Several in a plane have numbers: names would stand nearer to other marks than to their own.
    """
    found = facts.get("marks", [])
    plane = record["settings"]["dims"] == 2
    labels = short_names([mark["label"] for mark in found], 24) if found else []
    if plane and len(found) > 1:
        labels = [str(number) for number in range(1, len(found) + 1)]
    alone = len(found) == 1 and (len(record["grids"]) > 1 or plane)
    return [
        Mark("" if alone else label, mark["alpha"], mark.get("beta"), mark.get("loss"),
             mark.get("accuracy"))
        for label, mark in zip(labels, found, strict=True)
    ]  # fmt: skip


def _lines(record: dict[str, Any], arrays: Arrays, names: list[str], axes: Any = None) -> Any:
    parts = {
        name: _values(arrays, name, 1, len(names))
        for name in ("loss", "accuracy", "test_loss", "test_accuracy")
    }
    repeats = len(record["grids"]) // len(names)
    lines = {}
    for index, name in enumerate(names):
        facts = record["grids"][index * repeats]
        own: Any = {key: None if all_ is None else all_[index] for key, all_ in parts.items()}
        predicted, curvature = None, ""
        if record["settings"]["directions"] == "eigen":
            predicted = prediction(facts, _dense(arrays["alpha"]))
            curvature = _predicted(record, facts)
        path = None
        if "path" in facts:
            path = np.array([facts["path"]["alpha"], facts["path"]["loss"]], dtype=float).T
        lines[name] = Line(
            arrays["alpha"],
            **own,
            predicted=predicted,
            predicted_name=f"{name}: {curvature}" if len(names) > 1 else curvature,
            marks=_marks(record, facts),
            path=path,
        )
    alone = len(names) == 1
    words = _words(record)
    return loss_bands(
        {names[0]: {"": lines[names[0]]}} if alone else {"": lines},
        xlabel=_axis(record, 0),
        ylabel=words["loss"],
        accuracy_label=words["accuracy"],
        notes=landscape_notes(record, arrays),
        axes=axes,
    )


def _dense(axis: np.ndarray) -> np.ndarray:
    """So many places that a parabola looks smooth however few points were measured."""
    return np.linspace(axis[0], axis[-1], DENSE)


def prediction(facts: dict[str, Any], alpha: Any, beta: Any = 0.0) -> np.ndarray | None:
    """The quadratic with the slopes and curvatures at the checkpoint.

    Args:
        facts: a grid's, of the record.
        alpha: along the first axis, any shape.
        beta: along the second one, of a shape that goes with it.

    Returns:
        Losses, or ``None`` where slopes or curvatures are missing.
    """
    slopes, curvatures = facts.get("slopes") or [None], facts.get("curvatures") or [None]
    centre = next((m["loss"] for m in facts["marks"] if not (m["alpha"] or m.get("beta"))), None)
    if None in (centre, *slopes, *curvatures):
        return None
    loss = centre + slopes[0] * alpha + curvatures[0] * alpha**2 / 2
    if len(slopes) > 1:
        loss = loss + slopes[1] * beta + curvatures[1] * beta**2 / 2
        loss = loss + (facts.get("mixed") or 0.0) * alpha * beta
    return np.asarray(loss)


def _predicted(record: dict[str, Any], facts: dict[str, Any]) -> str:
    """The curvatures along the axes, eigenvalues where these are still the eigenvectors."""
    values = facts.get("curvatures") or [None]
    if None in values:
        return ""
    numbers = "₁₂" if len(values) > 1 else [""]
    if record["settings"]["normalize"] != "none":
        return f"predicted, curvature {' and '.join(f'{value:.3g}' for value in values)}"
    found = zip(numbers, values, facts["norms"], strict=True)
    return ", ".join(["predicted", *(f"λ{n} = {v / norm**2:.3g}" for n, v, norm in found)])


def _planes(record: dict[str, Any], arrays: Arrays, names: list[str], axes: Any = None) -> Any:
    repeats = len(record["grids"]) // len(names)
    shown = repeats if repeats * len(names) <= MOST else 1
    count = shown * len(names)
    columns = max(count if count <= 4 else 3, 2)
    ending = " #9" * (shown > 1) + ", train" * ("test_loss" in arrays)
    room = title_room(2 if count == 1 else min(columns, count))
    if names != [""]:
        names = fitting_names(record["checkpoints"], room - inches(f"x{ending}"))
    titles = [name if shown == 1 else f"{name} #{draw}" for name in names for draw in range(shown)]
    facts = [record["grids"][c * repeats + d] for c in range(len(names)) for d in range(shown)]
    both = "test_loss" in arrays
    found: dict[str, dict[str, Plane]] = {"loss": {}, "accuracy": {}}
    for kind, (start, word) in itertools.product(found, (("", ", train"), ("test_", ", test"))):
        values = _values(arrays, start + kind, 2, len(names))
        if values is None:
            continue
        grids = values[:, :shown].reshape(-1, *values.shape[2:])
        for title, own, grid in zip(titles, facts, grids, strict=True):
            shift = 100 if kind == "accuracy" else 1
            found[kind][(title + word).removeprefix(", ") if both else title] = Plane(
                arrays["alpha"], arrays["beta"], shift * grid, **_marks_and_path(record, own)
            )
    words = _words(record)
    return loss_contours(
        found["loss"],
        accuracies=found["accuracy"],
        columns=columns,
        xlabel=_axis(record, 0),
        ylabel=_axis(record, 1),
        label=words["loss"],
        accuracy_label=words["accuracy"],
        notes=landscape_notes(record, arrays, first_of=repeats if shown < repeats else 0),
        axes=axes,
    )


def _surfaces(record: dict[str, Any], arrays: Arrays, names: list[str]) -> Any:
    """The train loss of each checkpoint's first draw."""
    losses = _values(arrays, "loss", 2, len(names))
    repeats = len(record["grids"]) // len(names)
    planes = {
        name: Plane(
            arrays["alpha"],
            arrays["beta"],
            losses[index, 0],  # type: ignore[index]
            _marks(record, record["grids"][index * repeats]),
        )
        for index, name in enumerate(names)
    }
    notes = landscape_notes(record, arrays, first_of=repeats if repeats > 1 else 0)
    return surface_figure(planes, label=_words(record)["loss"], notes=notes)


def _marks_and_path(record: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Marks and path of a plane; the end of a path is its mark."""
    if "path" not in facts:
        return {"marks": _marks(record, facts)}
    return {"path": np.array([facts["path"]["alpha"], facts["path"]["beta"]], dtype=float).T}


def _cuts(record: dict[str, Any], arrays: Arrays, names: list[str]) -> Any:
    """Through the grid's points that are nearest to the checkpoint, along both axes."""
    losses, tests = (_values(arrays, key, 2, len(names)) for key in ("loss", "test_loss"))
    settings: dict[str, dict[str, Line]] = {}
    for index, axis in enumerate(("alpha", "beta")):
        other = arrays[("beta", "alpha")[index]]
        nearest = int(np.abs(other).argmin())
        lines = settings.setdefault(f"along eigenvector {index + 1}", {})
        for number, name in enumerate(names):
            facts = record["grids"][number]
            coordinates = (_dense(arrays[axis]), float(other[nearest]))
            curvature = _predicted(record, facts)
            lines[name] = Line(
                arrays[axis],
                losses[number].take(nearest, axis=2 - index),  # type: ignore[index]
                test_loss=None if tests is None else tests[number].take(nearest, axis=2 - index),
                predicted=prediction(facts, *(coordinates if index == 0 else coordinates[::-1])),
                predicted_name=f"{name}: {curvature}" if len(names) > 1 else curvature,
                marks=[
                    Mark("", mark["alpha"] or mark["beta"], loss=mark["loss"])
                    for mark in facts.get("marks", [])
                    if math.isclose(mark[("beta", "alpha")[index]], other[nearest], abs_tol=1e-12)
                ],
            )
    unit = record["units"]["alpha"]
    return loss_bands(
        settings,
        xlabel=unit,
        ylabel=_words(record)["loss"],
        notes=landscape_notes(record, arrays),
    )
