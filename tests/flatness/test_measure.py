import json

import nets
import numpy as np
import pytest
import reference
import torch

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.files import jsonable
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.flatness.measure import measure
from ssgd_analysis.problem import Problem

# INTERFACE.md, section 2, sharpness: what one checkpoint's object holds besides its name
KEYS = {
    "operator", "n_samples", "n_parameters", "loss", "accuracy", "eigenvalues",
    "smallest_eigenvalue", "trace", "density", "metrics", "cost",
}  # fmt: skip


@pytest.mark.parametrize("operator", reference.OPERATORS)
@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "regression"])
def test_reports_the_truth(operator, net):
    case = nets.CASES[net]()
    found = measure(Problem(*case.problem), operator=operator, top=2, tol=1e-8)
    dense = reference.OPERATORS[operator](case)
    values = torch.linalg.eigvalsh(dense)
    eigenvalues = [entry["value"] for entry in found["eigenvalues"]]
    np.testing.assert_allclose(eigenvalues, values[-2:].flip(0), rtol=1e-8)
    smallest = found["smallest_eigenvalue"]["value"]
    assert smallest == pytest.approx(float(values[0]), abs=1e-8 * float(values[-1]))
    assert abs(found["trace"]["value"] - float(dense.trace())) <= 5 * found["trace"]["stderr"]
    w = reference.flat_weights(case.model)
    assert found["loss"] == pytest.approx(reference.loss_at(case, w), rel=1e-12)
    assert found["n_parameters"] == len(w)
    assert found["n_samples"] == nets.N
    assert found["weight_norm"] == pytest.approx(float(w.norm()), rel=1e-12)
    assert (found["accuracy"] is None) == (net == "regression")


@pytest.mark.parametrize("operator", reference.OPERATORS)
def test_metrics_are_those_of_the_table(operator):
    # whatever the operator, a metric is what its table entry says; λ_max may be known finer
    case = nets.mlp()
    found = measure(Problem(*case.problem), operator=operator, metrics=list(METRICS), seed=4)
    assert list(found["metrics"]) == list(METRICS)
    for name, measured in found["metrics"].items():
        alone = METRICS[name].measure(*case.problem, seed=4)
        assert measured["value"] == pytest.approx(alone.value, rel=1e-3)
        assert measured["stderr"] == pytest.approx(alone.stderr, rel=0.05)
        assert set(measured["settings"]) == set(alone.settings)


def test_is_the_json_of_the_contract():
    found = measure(Problem(*nets.mlp().problem), metrics=["sam"])
    assert set(found) >= KEYS
    text = json.dumps(jsonable(found), allow_nan=False)
    assert json.loads(text)["metrics"]["sam"].keys() == {"value", "stderr", "settings"}
    assert set(found["eigenvalues"][0]) >= {"value", "residual", "stderr"}
    assert found["cost"]["matvecs"] > 0
    assert found["cost"]["seconds"] > 0


def test_a_seed_repeats():
    problem = Problem(*nets.mlp().problem)
    first, again = (jsonable(measure(problem, metrics=list(METRICS), seed=1)) for _ in range(2))
    first["cost"].pop("seconds")
    again["cost"].pop("seconds")
    assert first == again


def test_model_comes_back_untouched():
    case = nets.with_state(nets.conv_batchnorm())
    before = nets.state(case.model)
    measure(Problem(*case.problem), metrics=list(METRICS))
    assert nets.state(case.model) == before


@pytest.mark.parametrize("options", [{"operator": "hesian"}, {"metrics": ["lambda-max"]}])
def test_unknown_names_are_refused_with_the_nearest(options):
    with pytest.raises(InputError, match="did you mean"):
        measure(Problem(*nets.mlp().problem), **options)


def test_a_loss_that_is_not_finite_fails_before_long_work():
    case = nets.mlp()
    calls = nets.RaisesAfter(lambda outputs, targets: outputs.sum() * float("inf"), 1)
    with pytest.raises(WorkError):
        measure(Problem(case.model, calls, case.batches()))


def test_a_later_batch_that_is_not_finite_fails_too():
    case = nets.mlp()
    inputs = case.inputs.clone()
    inputs[-1] = float("nan")
    with pytest.raises(WorkError):
        measure(
            Problem(
                case.model, case.loss, nets.Case(*case.problem[:2], inputs, case.targets).batches()
            )
        )
