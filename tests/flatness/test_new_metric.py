"""A new metric is one file and one line in the table: all else finds it there."""

import importlib.util
from pathlib import Path
from types import ModuleType

import nets
import pytest

from ssgd_analysis import flatness
from ssgd_analysis.compare.circular import circular
from ssgd_analysis.flatness import METRICS, Measurement, metric
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.metric import Perturbation
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.sharpness import measure

TESTS = Path(__file__).parents[1]


@metric(
    "size times the number of parameters",
    invariant_to=("permutation",),
    radius="size",
    radii=(0.1, 0.2),
    note="made up",
    needs=("patience",),
    perturbs=Perturbation("noise", "size", law="gaussian", scale="none"),
)
def made_up(context: MetricContext, *, size: float = 0.1) -> Measurement:
    settings = {"size": size, "error": "examples"}
    return Measurement(size * context.problem.n_parameters, None, settings)


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch):
    monkeypatch.setitem(METRICS, "made_up", made_up)


def module_at(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, TESTS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_metric_is_a_name_of_the_room():
    for name, found in METRICS.items():
        assert found.name == name
        if found is not made_up:
            assert getattr(flatness, name) is found


def test_it_is_listed(run):
    found = {entry["name"]: entry for entry in run("list", "metrics", "--json").json}["made_up"]
    assert found["summary"] == made_up.summary
    assert found["invariant_to"] == ["permutation"]
    assert (found["radius"], found["radii"]) == ("size", [0.1, 0.2])
    assert (found["needs"], found["defaults"]) == (["patience"], {"size": 0.1})
    assert "needs: patience" in run("list", "metrics").out


def test_it_is_measured_in_a_record_and_by_the_command(run, tmp_path):
    problem = Problem(*nets.mlp().problem)
    found = measure(problem, metrics=["made_up"], curves=True, top=1, probes=2)
    record = found.to_json()["metrics"]["made_up"]
    assert record["value"] == pytest.approx(0.1 * problem.n_parameters)
    assert record["curve"]["values"] == pytest.approx([record["value"], 2 * record["value"]])
    assert run("train", "--method", "sgd", "--data", "two_moons", "--model", "mlp",
               "--epochs", 1, "--out", tmp_path / "r").status == 0  # fmt: skip
    outcome = run("sharpness", tmp_path / "r", "--metric", "made_up:size=2", "--top", 1,
                  "--probes", 2, "--samples", 50)  # fmt: skip
    assert "made_up:size=2 (made up)" in outcome.out


def test_docs_must_name_it(monkeypatch):
    check = module_at("test_docs.py").test_docs_name_every_method_and_metric
    with pytest.raises(AssertionError):
        check()
    monkeypatch.delitem(METRICS, "made_up")
    check()


def test_its_invariances_are_tested():
    invariance = module_at("flatness/test_invariance.py")
    held = invariance.test_a_claim_holds_on_every_network_and_no_claim_fails_on_one
    held("made_up", "permutation")
    with pytest.raises(AssertionError, match="stays"):  # it is invariant, and does not claim it
        held("made_up", "layer")


def test_a_method_that_trained_on_it_is_named():
    settings = {"noise_law": "gaussian", "noise_relative_to": "none", "noise_scale": 0.1}
    config = TrainConfig(method="s-sgd", data="digits", model="mlp", settings=settings)
    assert "s-sgd trained on" in circular("made_up", config)
    assert circular("made_up:size=3.0", config) == ""
