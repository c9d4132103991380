"""Connections of models in memory as records: stored path by path, plotted, saved and read."""

import copy

import nets
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ssgd_analysis.connections import ConnectionRecord, ConnectionSettings, connect
from ssgd_analysis.connections import compute as computing
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

FEW = ConnectionSettings(points=3, epochs=1)


def ends() -> tuple[Problem, torch.nn.Module]:
    case = nets.mlp()
    other = copy.deepcopy(case.model)
    with torch.no_grad():
        for seed, parameter in enumerate(other.parameters()):
            parameter.add_(0.5 * nets.randn(*parameter.shape, seed=seed))
    return Problem(*case.problem), other


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The kinds of the paths that are really searched."""
    made: list[str] = []
    real = computing.find_connection

    def counted(kind, *arguments, **options):
        made.append(kind)
        return real(kind, *arguments, **options)

    monkeypatch.setattr(computing, "find_connection", counted)
    return made


def test_paths_are_taken_from_the_folder_bit_for_bit(tmp_path, calls):
    first, other = ends()
    whole = connect(first, other, FEW, paths=["line", "bezier"], folder=tmp_path)
    assert calls == ["line", "bezier"]
    more = connect(first, other, FEW, paths=["bezier", "matched"], folder=tmp_path, resume=True)
    assert calls == ["line", "bezier", "matched"]
    assert list(more.found) == ["matched"]
    for name in ("bezier_train_loss", "t"):
        np.testing.assert_array_equal(more.arrays[name], whole.arrays[name])
    settings = ConnectionSettings(points=3, epochs=2)
    connect(first, other, settings, paths=["line"], folder=tmp_path, resume=True)
    assert calls[-1] == "line"


def test_a_saved_record_is_read_back_and_counts_as_finished(tmp_path, calls):
    first, other = ends()
    record = connect(first, other, FEW, paths=["line"], folder=tmp_path)
    files = record.save(tmp_path)
    assert all(file.is_file() for file in files)
    again = ConnectionRecord.read(tmp_path)
    assert again.to_json()["paths"] == record.to_json()["paths"]
    assert again.rows() == record.rows()
    assert connect(first, other, FEW, paths=["line"], folder=tmp_path, resume=True).resumed
    (tmp_path / "connect.csv").unlink()
    assert not connect(first, other, FEW, paths=["line"], folder=tmp_path, resume=True).resumed
    assert calls == ["line"]


def test_weights_are_stored_for_every_bend(tmp_path):
    first, other = ends()
    record = connect(
        first, other, FEW, paths=["line", "matched", "chain"], folder=tmp_path, save_weights=True
    )
    names = ["matched", "chain-1", "chain-2", "chain-3"]
    expected = [str(tmp_path / "weights" / f"{name}.safetensors") for name in names]
    assert record.document["weights"] == expected
    assert len(list((tmp_path / "weights").iterdir())) == 4


def test_a_record_is_drawn_into_given_axes_or_new_ones():
    first, other = ends()
    record = connect(first, other, FEW, paths=["line"])
    axes = Figure().subplots()
    assert record.plot(axes) is axes
    assert axes.has_data()
    assert record.plot().has_data()
    assert record.splits == ["train"]


def test_other_examples_of_the_second_problem_are_noted():
    first, other = ends()
    case = nets.mlp()
    second = Problem(other, case.loss, [(case.inputs + 1, case.targets)])
    assert (
        connect(first, Problem(other, case.loss, case.batches()), FEW, paths=["line"]) is not None
    )
    found = connect(first, second, FEW, paths=["line"])
    assert "different examples" in found.document["notes"][0]


def test_refusals():
    first, other = ends()
    with pytest.raises(InputError, match="bezir"):
        connect(first, other, FEW, paths=["bezir"])
    with pytest.raises(InputError, match="needs a folder"):
        connect(first, other, FEW, save_weights=True)


def test_a_finished_record_of_fewer_paths_is_not_taken_for_more(tmp_path, calls):
    first, other = ends()
    connect(first, other, FEW, paths=["line"], folder=tmp_path).save(tmp_path)
    connect(first, other, FEW, paths=["line", "matched"], folder=tmp_path)  # killed before save
    calls.clear()
    found = connect(first, other, FEW, paths=["line", "matched"], folder=tmp_path, resume=True)
    assert [row["path"] for row in found.rows()] == ["line", "matched"]
    assert calls == []


def test_another_loss_is_another_connection(tmp_path, calls):
    first, other = ends()
    connect(first, other, FEW, paths=["line"], folder=tmp_path)
    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.5)
    changed = Problem(first.model, smooth, first.batches)
    connect(changed, other, FEW, paths=["line"], folder=tmp_path, resume=True)
    assert calls == ["line", "line"]
