"""A landscape for other programs: one table, and VTK files that open in ParaView."""

import base64
import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import write_text

VALUES = ("loss", "accuracy", "test_loss", "test_accuracy", "measured")
HIDDEN = 2  # vtkDataSetAttributes::HIDDENPOINT: cells that touch such a point are not drawn


def write_csv(record: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> Path:
    """One row a point; what is not finite is left empty, numbers read back bit for bit.

    Args:
        record: of the landscape, as in ``landscape.json``.
        arrays: of the landscape, as in ``landscape.npz``.
        path: the file to write.

    Returns:
        The path.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(point_rows(record, arrays)):
        if not number:
            table.writerow(row)
        table.writerow(map(_cell, row.values()))
    write_text(path, text.getvalue())
    return path


def point_rows(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """One row a point: checkpoint, repeat, coordinates and values; NaN: not finite."""
    axes = [name for name in ("alpha", "beta") if name in arrays]
    columns = [name for name in VALUES if name in arrays]
    coordinates = np.meshgrid(*(arrays[axis] for axis in axes), indexing="ij")
    for grid, values in _grids(record, arrays):
        cells = [coordinate.ravel().tolist() for coordinate in coordinates]
        cells += [values[name].ravel().tolist() for name in columns]
        facts = {"checkpoint": grid["checkpoint"], "repeat": grid["repeat"]}
        for row in zip(*cells, strict=True):
            yield facts | dict(zip([*axes, *columns], row, strict=True))


def write_vtk(record: dict[str, Any], arrays: dict[str, np.ndarray], stem: Path) -> list[Path]:
    """Each plane flat and as a surface, for ParaView and other programs that read VTK.

    The flat one is an image (``.vti``), or a rectilinear grid (``.vtr``) where an axis is not
    uniform; x is alpha, y is beta, the values stand at the points: ``loss``, ``log10_loss``,
    ``accuracy`` and what else there is. The surface (``.vts``) has z too: the loss, lowered and
    scaled so that all surfaces of the call together are half as high as the wider axis is long
    (in its field data: loss = ``lowest_loss`` + z · ``loss_per_height``). Points whose loss is
    not finite are hidden.

    Args:
        record: of the landscape, as in ``landscape.json``.
        arrays: of the landscape, as in ``landscape.npz``; two-dimensional.
        stem: files are ``stem.vti`` and ``stem.vts``; with a number, in the order of the record's
            grids, where there are several.

    Returns:
        The paths.

    Raises:
        InputError: the landscape is a line.
        WorkError: the disk is full or the folder not writable.
    """
    if "beta" not in arrays:
        raise InputError("VTK files hold planes and this landscape is a line: use --dims 2")
    alpha, beta = (np.asarray(arrays[axis], dtype=np.float64) for axis in ("alpha", "beta"))
    scale = _scale(alpha, beta, arrays["loss"])
    several = len(record["grids"]) > 1
    paths = []
    for number, (_, values) in enumerate(_grids(record, arrays), start=1):
        name = f"{stem.name}-{number}" if several else stem.name
        points = _point_data(values)
        paths.append(_write_plane(stem.with_name(name), alpha, beta, points))
        paths.append(_write_surface(stem.with_name(f"{name}.vts"), alpha, beta, points, scale))
    return paths


def _grids(
    record: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Each grid's facts, and its arrays of shape (A,) or (A, B)."""
    shape = tuple(len(arrays[axis]) for axis in ("alpha", "beta") if axis in arrays)
    stacked = {name: arrays[name].reshape(-1, *shape) for name in VALUES if name in arrays}
    for number, grid in enumerate(record["grids"]):
        yield grid, {name: values[number] for name, values in stacked.items()}


def _cell(value: str | float | bool) -> str:
    if isinstance(value, str | int):  # booleans are integers, too
        return str(value).lower() if isinstance(value, bool) else str(value)
    return repr(value) if math.isfinite(value) else ""


def _point_data(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What stands at the points, each of shape (A, B)."""
    data = {}
    for name, value in values.items():
        if name == "measured":
            data[name] = value.astype(np.uint8)
            continue
        data[name] = value.astype(np.float64)
        positive = value > 0
        if name.endswith("loss") and positive.any():
            data[f"log10_{name}"] = np.log10(
                data[name], out=np.full(value.shape, np.nan), where=positive
            )
    holes = ~np.isfinite(values["loss"])
    if holes.any():
        data["vtkGhostType"] = HIDDEN * holes.astype(np.uint8)
    return data


def _scale(alpha: np.ndarray, beta: np.ndarray, loss: np.ndarray) -> tuple[float, float]:
    """The lowest loss and the loss for a unit of height, common to all surfaces."""
    finite = loss[np.isfinite(loss)].astype(np.float64)
    if not finite.size or finite.max() == finite.min():
        return float(finite.min(initial=0.0)) if not finite.size else float(finite[0]), 1.0
    height = 0.5 * max(np.ptp(alpha), np.ptp(beta))
    return float(finite.min()), float(np.ptp(finite) / height)


def _spacing(axis: np.ndarray) -> float | None:
    """The step of a uniform axis, or ``None``."""
    step = float(axis[-1] - axis[0]) / max(1, len(axis) - 1)
    even = axis[0] + step * np.arange(len(axis))
    # an axis made by linspace differs from this by roundings alone
    uniform = step > 0 and np.allclose(axis, even, rtol=0, atol=1e-9 * step)
    return step if uniform else None


def _write_plane(
    stem: Path, alpha: np.ndarray, beta: np.ndarray, points: dict[str, np.ndarray]
) -> Path:
    steps = _spacing(alpha), _spacing(beta)
    if None in steps:
        axes = {"x": alpha, "y": beta, "z": np.zeros(1)}
        return _write(stem.with_name(f"{stem.name}.vtr"), "RectilinearGrid", points, points_at=axes)
    origin = f"{float(alpha[0])!r} {float(beta[0])!r} 0"
    about = {"Origin": origin, "Spacing": f"{steps[0]!r} {steps[1]!r} 1"}
    return _write(stem.with_name(f"{stem.name}.vti"), "ImageData", points, attributes=about)


def _write_surface(
    path: Path,
    alpha: np.ndarray,
    beta: np.ndarray,
    points: dict[str, np.ndarray],
    scale: tuple[float, float],
) -> Path:
    lowest, unit = scale
    loss = points["loss"]
    height = np.where(np.isfinite(loss), (loss - lowest) / unit, 0.0)  # holes are hidden
    axes = np.broadcast_arrays(alpha[:, None], beta[None, :], height)
    corners = np.stack([axis.ravel(order="F") for axis in axes], axis=-1)
    about = {"lowest_loss": np.array([lowest]), "loss_per_height": np.array([unit])}
    return _write(path, "StructuredGrid", points, points_at={"points": corners}, field=about)


def _write(
    path: Path,
    kind: str,
    points: Mapping[str, np.ndarray],
    *,
    points_at: Mapping[str, np.ndarray] | None = None,
    field: Mapping[str, np.ndarray] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Path:
    """One grid as VTK's XML, numbers in it as base64: exact, NaN included.

    Reference: VTK File Formats, https://docs.vtk.org/en/latest/vtk_file_formats/.
    """
    rows, columns = points["loss"].shape
    extent = f"0 {rows - 1} 0 {columns - 1} 0 0"
    file = ET.Element("VTKFile", type=kind, version="1.0", byte_order="LittleEndian")
    file.set("header_type", "UInt64")
    grid = ET.SubElement(file, kind, WholeExtent=extent)
    grid.attrib.update(attributes or {})
    if field:
        _add_arrays(ET.SubElement(grid, "FieldData"), field)
    piece = ET.SubElement(grid, "Piece", Extent=extent)
    if points_at:
        kind_of_points = "Points" if "points" in points_at else "Coordinates"
        _add_arrays(ET.SubElement(piece, kind_of_points), points_at)
    # VTK lets x run fastest, and x is alpha, the first axis
    fast = {name: value.ravel(order="F") for name, value in points.items()}
    _add_arrays(ET.SubElement(piece, "PointData", Scalars="loss"), fast)
    write_text(path, '<?xml version="1.0"?>\n' + ET.tostring(file, encoding="unicode") + "\n")
    return path


def _add_arrays(parent: ET.Element, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        element = ET.SubElement(parent, "DataArray", Name=name, format="binary")
        element.set("type", "UInt8" if array.dtype == np.uint8 else "Float64")
        element.set("NumberOfTuples", str(len(array)))
        element.set("NumberOfComponents", str(1 if array.ndim == 1 else array.shape[1]))
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        size = len(content).to_bytes(8, "little")
        element.text = base64.b64encode(size + content).decode("ascii")
