"""Landscapes from models in memory as records: plotted, tabulated, saved and read again."""

import csv
import dataclasses
import functools
import json

import nets
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes import LandscapeRecord, LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.problem import Problem


def found(**settings) -> LandscapeRecord:
    case = nets.mlp()
    return landscape(Problem(*case.problem), LandscapeSettings(points=5, **settings))


@pytest.mark.parametrize("dims", [1, 2])
def test_a_saved_record_is_read_back_whole(tmp_path, dims):
    record = found(dims=dims)
    files = record.save(tmp_path)
    assert set(files) == set(tmp_path.iterdir())
    again = LandscapeRecord.read(tmp_path)
    assert again.resumed
    assert not record.resumed
    for name, array in record.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    written = again.to_json()
    assert written == json.loads((tmp_path / "landscape.json").read_text())
    assert written["out"] == str(tmp_path)
    where = {"out", "pictures"}
    assert {k: v for k, v in written.items() if k not in where} == {
        k: v for k, v in record.to_json().items() if k not in where
    }
    (tmp_path / "landscape.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="incomplete or damaged"):
        LandscapeRecord.read(tmp_path)


def test_rows_are_those_of_the_table(tmp_path):
    record = found(dims=2)
    record.save(tmp_path)
    with (tmp_path / "landscape.csv").open() as text:
        table = list(csv.DictReader(text))
    rows = record.rows()
    assert len(rows) == len(table) == 25
    for own, written in zip(rows, table, strict=True):
        assert {name: str(value) for name, value in own.items()} == written
    assert "25" not in repr(record).splitlines()[0]
    assert "5 more rows" in repr(record)


@pytest.mark.parametrize("dims", [1, 2])
def test_a_record_is_drawn_into_given_axes_or_new_ones(dims):
    record = found(dims=dims)
    axes = Figure().subplots()
    assert record.plot(axes) is axes
    assert axes.has_data()
    assert record.plot().has_data()


def test_several_problems_get_names_and_share_one_document():
    case = nets.mlp()
    problem = Problem(*case.problem)
    record = landscape([problem, NamedProblem("mine", problem)], LandscapeSettings(points=3))
    assert record.document["checkpoints"] == ["model 1", "mine"]
    assert record.document["model"] == "Sequential"
    assert record.arrays["loss"].shape == (2, 3)
    with pytest.raises(InputError, match="at least one problem"):
        landscape([])


def test_a_finished_landscape_is_returned_only_for_equal_settings(tmp_path):
    problem = Problem(*nets.mlp().problem)
    landscape(problem, LandscapeSettings(points=3), folder=tmp_path).save(tmp_path)
    assert landscape(problem, LandscapeSettings(points=3), folder=tmp_path, resume=True).resumed
    other = landscape(problem, LandscapeSettings(points=4), folder=tmp_path, resume=True)
    assert not other.resumed
    assert other.arrays["loss"].shape == (4,)


def test_another_loss_is_another_landscape_in_the_same_folder(tmp_path):
    """Also a loss without a name, as a partial."""
    case = nets.mlp()
    settings = LandscapeSettings(points=5)
    smooth = functools.partial(torch.nn.functional.cross_entropy, label_smoothing=0.5)
    arrays = []
    for loss in (torch.nn.functional.cross_entropy, smooth):
        record = landscape(
            Problem(case.model, loss, case.batches()), settings, folder=tmp_path, resume=True
        )
        assert not record.resumed
        record.save(tmp_path)
        arrays.append(record.arrays["loss"])
        np.testing.assert_array_equal(LandscapeRecord.read(tmp_path).arrays["loss"], arrays[-1])
    assert not np.allclose(*arrays)


def test_arrays_that_differ_are_written_under_the_same_settings(tmp_path):
    record = found()
    record.save(tmp_path)
    moved = {name: array + (name == "loss") for name, array in record.arrays.items()}
    dataclasses.replace(record, arrays=moved).save(tmp_path)
    np.testing.assert_array_equal(LandscapeRecord.read(tmp_path).arrays["loss"], moved["loss"])
