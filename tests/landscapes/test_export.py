"""What other programs read is what was computed: read back by the csv module and by VTK itself."""

import csv
import math
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import pyvista
from vtkmodules.vtkFiltersGeometry import vtkGeometryFilter

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.export import write_csv, write_vtk

ALPHA, BETA = np.linspace(-1, 1, 5), np.linspace(-0.3, 0.8, 4)
HARD = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2, np.nextafter(1, 2)]


def landscape(*, grids=1, alpha=ALPHA, beta=BETA):
    """No symmetry between alpha and beta, so that a swap shows."""
    plane = 1 + alpha[:, None] ** 2 + 3 * beta[None] ** 2 + 0.1 * alpha[:, None] - 0.7 * beta[None]
    loss = np.stack([plane * (1 + number) for number in range(grids)])
    arrays = {"loss": loss, "accuracy": 1 / (1 + loss)}
    if grids == 1:
        arrays = {name: value[0] for name, value in arrays.items()}
    record = {"grids": [{"checkpoint": f"run, {n}", "repeat": 0} for n in range(grids)]}
    return record, {"alpha": alpha, "beta": beta, **arrays}


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_holds_every_point_bit_for_bit(tmp_path):
    record, arrays = landscape(grids=2)
    arrays["test_loss"] = arrays["loss"] + 1
    arrays["measured"] = arrays["loss"] > 3
    table = rows(write_csv(record, arrays, tmp_path / "l.csv"))
    assert list(table[0]) == [
        "checkpoint", "repeat", "alpha", "beta", "loss", "accuracy", "test_loss", "measured",
    ]  # fmt: skip
    assert len(table) == 2 * 5 * 4
    places = {
        (f"run, {n}", float(a), float(b)): (n, i, j)
        for n in range(2) for i, a in enumerate(ALPHA) for j, b in enumerate(BETA)
    }  # fmt: skip
    for row in table:
        index = places.pop((row["checkpoint"], float(row["alpha"]), float(row["beta"])))
        for name in ("loss", "accuracy", "test_loss"):
            assert float(row[name]) == arrays[name][index]
        assert row["measured"] == ("true" if arrays["measured"][index] else "false")
    assert not places


def test_a_table_of_a_line_with_draws(tmp_path):
    record = {"grids": [{"checkpoint": "a", "repeat": r} for r in range(2)]}
    loss = np.array([HARD, HARD[::-1]])
    arrays = {"alpha": np.arange(7.0), "loss": loss, "accuracy": np.full((2, 7), np.nan)}
    table = rows(write_csv(record, arrays, tmp_path / "l.csv"))
    assert [float(row["loss"]) for row in table] == loss.ravel().tolist()
    assert math.copysign(1, float(table[4]["loss"])) == -1
    assert [row["repeat"] for row in table] == ["0"] * 7 + ["1"] * 7
    assert {row["accuracy"] for row in table} == {""}
    assert "beta" not in table[0]


def test_what_is_not_finite_is_empty(tmp_path):
    record, arrays = landscape()
    arrays["loss"][1, 2], arrays["loss"][3, 0] = np.nan, np.inf
    table = rows(write_csv(record, arrays, tmp_path / "l.csv"))
    assert [i for i, row in enumerate(table) if not row["loss"]] == [1 * 4 + 2, 3 * 4 + 0]


def test_single_precision_reads_back_too(tmp_path):
    record, arrays = landscape()
    arrays["loss"] = arrays["loss"].astype(np.float32)
    table = rows(write_csv(record, arrays, tmp_path / "l.csv"))
    assert np.array_equal([np.float32(row["loss"]) for row in table], arrays["loss"].ravel())


def points(mesh):
    """Points in the order of loss[alpha, beta], whatever order VTK keeps."""
    order = np.lexsort((mesh.points[:, 1], mesh.points[:, 0]))
    return mesh.points[order].astype(np.float64), order


def test_vtk_reads_the_same_plane_and_surface(tmp_path):
    record, arrays = landscape()
    arrays["measured"] = arrays["loss"] > 2
    image_path, surface_path = write_vtk(record, arrays, tmp_path / "l")
    assert (image_path.name, surface_path.name) == ("l.vti", "l.vts")
    image, surface = pyvista.read(image_path), pyvista.read(surface_path)
    assert isinstance(image, pyvista.ImageData)
    assert image.dimensions == surface.dimensions == (5, 4, 1)
    assert image.origin == (ALPHA[0], BETA[0], 0)
    for mesh in (image, surface):
        places, order = points(mesh)
        # an image holds origin and step alone: roundings apart from linspace
        assert places[:, 0] == pytest.approx(np.repeat(ALPHA, 4), abs=1e-15)
        assert places[:, 1] == pytest.approx(np.tile(BETA, 5), abs=1e-15)
        for name in ("loss", "accuracy", "measured"):
            assert np.array_equal(mesh.point_data[name][order], arrays[name].ravel())
        logs = [math.log10(value) for value in arrays["loss"].ravel()]
        assert mesh.point_data["log10_loss"][order] == pytest.approx(logs, rel=1e-15)
        assert "vtkGhostType" not in mesh.point_data
    places, order = points(surface)
    assert np.array_equal(places[:, 0], np.repeat(ALPHA, 4))
    assert np.array_equal(places[:, 1], np.tile(BETA, 5))
    assert (places[:, 2].min(), places[:, 2].max()) == (0, pytest.approx(1))  # half of alpha's 2
    field = surface.field_data
    again = field["lowest_loss"][0] + places[:, 2] * field["loss_per_height"][0]
    assert again == pytest.approx(arrays["loss"].ravel(), rel=1e-14)


def test_a_very_small_plane_keeps_its_place(tmp_path):
    record, arrays = landscape(alpha=1e-9 * ALPHA, beta=1e-12 * BETA)
    image = pyvista.read(write_vtk(record, arrays, tmp_path / "l")[0])
    assert image.bounds == pytest.approx((-1e-9, 1e-9, -3e-13, 8e-13, 0, 0), rel=1e-12, abs=0)


def test_axes_that_are_not_uniform(tmp_path):
    alpha = np.array([-0.5, -0.25, 0, 1 / 3, 1, 1.5])
    record, arrays = landscape(alpha=alpha)
    path = write_vtk(record, arrays, tmp_path / "l")[0]
    mesh = pyvista.read(path)
    assert path.suffix == ".vtr"
    assert np.array_equal(mesh.x, alpha)
    assert np.array_equal(mesh.y, BETA)
    _, order = points(mesh)
    assert np.array_equal(mesh.point_data["loss"][order], arrays["loss"].ravel())


def test_holes_are_hidden_and_stay_nan(tmp_path):
    record, arrays = landscape()
    arrays["loss"][2, 1] = np.nan
    for path in write_vtk(record, arrays, tmp_path / "l"):
        mesh = pyvista.read(path)
        _, order = points(mesh)
        assert np.array_equal(mesh.point_data["loss"][order], arrays["loss"].ravel(), True)
        assert np.isfinite(mesh.bounds).all()
        # VTK itself leaves out the four cells around the hole when it draws
        drawn = vtkGeometryFilter()
        drawn.SetInputData(mesh)
        drawn.Update()
        assert drawn.GetOutput().GetNumberOfCells() == 4 * 3 - 4


def test_losses_without_a_logarithm(tmp_path):
    record, arrays = landscape()
    arrays["loss"] -= 2
    mesh = pyvista.read(write_vtk(record, arrays, tmp_path / "l")[0])
    positive = mesh.point_data["loss"] > 0
    assert np.array_equal(np.isfinite(mesh.point_data["log10_loss"]), positive)
    arrays["loss"] -= 100
    assert "log10_loss" not in pyvista.read(write_vtk(record, arrays, tmp_path / "l")[0]).point_data


def test_one_file_a_grid_on_one_scale(tmp_path):
    record, arrays = landscape(grids=2)
    paths = write_vtk(record, arrays, tmp_path / "l")
    assert [path.name for path in paths] == ["l-1.vti", "l-1.vts", "l-2.vti", "l-2.vts"]
    for number in range(2):
        mesh = pyvista.read(paths[2 * number])
        assert np.array_equal(
            mesh.point_data["loss"][points(mesh)[1]], arrays["loss"][number].ravel()
        )
    low, high = (pyvista.read(path).bounds for path in paths[1::2])
    first, second = arrays["loss"]
    span = second.max() - first.min()
    assert (low[4], high[5]) == (0, pytest.approx(1))
    assert low[5] == pytest.approx((first.max() - first.min()) / span)
    assert high[4] == pytest.approx((second.min() - first.min()) / span)


def test_flat_and_all_holes(tmp_path):
    record, arrays = landscape()
    for value in (2.0, np.nan):
        arrays["loss"] = np.full_like(arrays["loss"], value)
        surface = pyvista.read(write_vtk(record, arrays, tmp_path / "l")[1])
        assert np.isfinite(surface.points).all()
        assert np.ptp(surface.points[:, 2]) == 0


def test_files_are_well_formed_and_repeat(tmp_path):
    record, arrays = landscape()
    first = [path.read_bytes() for path in write_vtk(record, arrays, tmp_path / "l")]
    assert first == [path.read_bytes() for path in write_vtk(record, arrays, tmp_path / "l")]
    assert [ET.fromstring(text).tag for text in first] == ["VTKFile", "VTKFile"]
    assert {path.name for path in tmp_path.iterdir()} == {"l.vti", "l.vts"}


def test_a_line_is_no_plane(tmp_path):
    record = {"grids": [{"checkpoint": "a", "repeat": 0}]}
    with pytest.raises(InputError, match="--dims 2"):
        write_vtk(record, {"alpha": ALPHA, "loss": ALPHA**2}, tmp_path / "l")
