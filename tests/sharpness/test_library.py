"""Records from Python: what the command prints and writes, without the command."""

import json

import matplotlib.pyplot as plt
import nets
import pytest

from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.sharpness import (
    CheckpointProblem,
    SharpnessRecords,
    SharpnessSettings,
    measure,
    measure_checkpoints,
)

SMALL = {"top": 2, "probes": 2}


@pytest.fixture
def problem() -> Problem:
    return Problem(*nets.mlp().problem)


def test_a_record_is_read_drawn_tabulated_and_saved(problem, tmp_path):
    record = measure(problem, metrics=["sam", "expected:draws=2"], **SMALL, name="net")
    found = record.to_json()
    assert list(found)[:3] == ["checkpoint", "split", "operator"]
    assert found["checkpoint"] == "net"
    rows = {row["quantity"]: row for row in record.rows()}
    assert list(rows) == [
        "loss", "accuracy", "λ1", "λ2", "smallest λ", "tr hessian", "sam", "expected:draws=2",
    ]  # fmt: skip
    assert rows["λ1"]["value"] == found["eigenvalues"][0]["value"]
    assert rows["sam"]["stderr"] == found["metrics"]["sam"]["stderr"]
    axes = plt.figure().add_subplot()
    assert record.plot(axes) is axes
    assert axes.lines
    files = record.save(tmp_path / "out")
    assert [path.name for path in files] == ["sharpness.json", "density.png", "density.pdf"]
    assert json.loads(files[0].read_text()) == {"checkpoints": [json.loads(json.dumps(found))]}
    plt.close("all")


def test_all_is_every_metric_that_the_problem_has(only_metrics):
    only_metrics({"sam", "margin"})
    found = measure(Problem(*nets.regression().problem), metrics=["all"], **SMALL).to_json()
    assert found["metrics"]["sam"]["value"] is not None
    assert found["metrics"]["margin"]["value"] is None
    assert "not class labels" in found["metrics"]["margin"]["why"]


def test_finished_checkpoints_are_resumed_at_equal_settings_only(problem, tmp_path, monkeypatch):
    both = [CheckpointProblem(name, problem) for name in ("a", "b")]
    settings = SharpnessSettings(**SMALL, metrics=["sam"])
    first = measure_checkpoints(both, settings, folder=tmp_path)
    assert [entry["checkpoint"] for entry in first.to_json()["differences"]] == ["b"]
    (axes,) = first.plot().figure.axes  # one panel for both
    assert axes.get_legend_handles_labels()[1] == ["a", "b"]

    def refused(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr("ssgd_analysis.sharpness.checkpoints.planned_operator", refused)
    again = measure_checkpoints(both, settings, folder=tmp_path, resume=True)
    assert isinstance(again, SharpnessRecords)
    assert again.to_json() == first.to_json()
    with pytest.raises(AssertionError, match="measured again"):
        measure_checkpoints(both, SharpnessSettings(**SMALL), folder=tmp_path, resume=True)
    (tmp_path / "checkpoints" / "000.json").write_text("{")
    with pytest.raises(InputError, match=r"000\.json is damaged"):
        measure_checkpoints(both, settings, folder=tmp_path, resume=True)


def test_settings_that_exclude_one_another_are_refused(problem):
    with pytest.raises(InputError, match="has a radius"):
        measure(problem, metrics=["trace"], curves=True)
    with pytest.raises(InputError, match="compares Hessians"):
        measure(problem, operator="ggn", cross_check=True)
    with pytest.raises(InputError, match="needs --out"):
        measure_checkpoints([CheckpointProblem("a", problem)], SharpnessSettings(), resume=True)
