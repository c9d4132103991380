import json
import time

import nets
import numpy as np
import pytest
import reference
import torch

from ssgd_analysis.curvature import Options
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.files import jsonable
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT
from ssgd_analysis.sharpness import SharpnessRecord, SharpnessSettings
from ssgd_analysis.sharpness.build import build, planned_operator

# INTERFACE.md, section 2, sharpness: what one checkpoint's object holds besides its name
KEYS = {
    "operator", "n_samples", "n_parameters", "loss", "accuracy", "eigenvalues",
    "smallest_eigenvalue", "trace", "density", "metrics", "cost",
}  # fmt: skip

# every metric, with the settings that it can't do without
NEEDS = {name: reference.METRICS[name].needs for name in METRICS}
ASKED = [
    f"{name}:{','.join(f'{key}={value}' for key, value in need.items())}".removesuffix(":")
    for name, need in NEEDS.items()
]


def record(case: nets.Case, **request) -> dict:
    return measured(Problem(*case.problem), SharpnessSettings(**request)).document


def measured(problem, settings, *, start=None, deadline=None) -> SharpnessRecord:
    operator = planned_operator(problem, settings, SILENT)
    document, vectors = build(
        operator, problem, settings, start=start, deadline=deadline, progress=SILENT
    )
    shapes = {name: parameter.shape for name, parameter in problem.parameters.items()}
    return SharpnessRecord("", None, document, vectors, shapes)


@pytest.mark.parametrize("operator", reference.OPERATORS)
@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "regression"])
def test_reports_the_truth(operator, net):
    case = nets.CASES[net]()
    found = record(case, operator=operator, top=2, tol=1e-8)
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
    found = record(case, operator=operator, metrics=ASKED, seed=4)
    assert list(found["metrics"]) == ASKED
    for name, measured in zip(METRICS, found["metrics"].values(), strict=True):
        alone = METRICS[name](Problem(*case.problem), seed=4, **NEEDS[name])
        traces = ("trace", "trace_per_parameter")
        if name in traces and operator == "hessian":  # known better: its outliers are deflated
            assert abs(measured["value"] - alone.value) < 5 * (measured["stderr"] + alone.stderr)
            assert measured["settings"]["deflated"] == 6  # the smallest is known too
        else:
            assert measured["value"] == pytest.approx(alone.value, rel=1e-3)
            assert measured["stderr"] == pytest.approx(alone.stderr, rel=0.05)
        assert set(measured["settings"]) == set(alone.settings)


def test_is_the_json_of_the_contract():
    found = record(nets.mlp(), metrics=["sam"])
    assert set(found) >= KEYS
    text = json.dumps(jsonable(found), allow_nan=False)
    assert json.loads(text)["metrics"]["sam"].keys() >= {"value", "stderr", "settings"}
    assert set(found["eigenvalues"][0]) >= {"value", "residual", "stderr"}
    assert found["cost"]["matvecs"] > 0
    assert found["cost"]["seconds"] > 0


def test_a_seed_repeats():
    options = Options(
        strategy="graph", micro_batch=4
    )  # else the clock chooses, and rounding differs
    first, again = (
        jsonable(record(nets.mlp(), metrics=ASKED, seed=1, options=options)) for _ in range(2)
    )
    first["cost"].pop("seconds")
    again["cost"].pop("seconds")
    assert first == again


def test_model_comes_back_untouched():
    case = nets.with_state(nets.conv_batchnorm())
    before = nets.state(case.model)
    record(case, metrics=ASKED, per_layer=True)
    assert nets.state(case.model) == before


@pytest.mark.parametrize("options", [{"operator": "hesian"}, {"metrics": ["lambda-max"]}])
def test_unknown_names_are_refused_with_the_nearest(options):
    with pytest.raises(InputError, match="did you mean"):
        record(nets.mlp(), **options)


def test_a_loss_that_is_not_finite_fails_before_long_work():
    case = nets.mlp()
    # three batches, read once and evaluated once
    calls = nets.RaisesAfter(lambda outputs, targets: outputs.sum() * float("inf"), 6)
    with pytest.raises(WorkError):
        measured(Problem(case.model, calls, case.batches()), SharpnessSettings())


def test_a_later_batch_that_is_not_finite_fails_too():
    case = nets.mlp()
    inputs = case.inputs.clone()
    inputs[-1] = float("nan")
    with pytest.raises(WorkError):
        record(nets.Case(case.model, case.loss, inputs, case.targets))


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "tied", "attention"])
def test_layers_are_the_diagonal_blocks(net):
    case = nets.CASES[net]()
    found = record(case, per_layer=True, tol=1e-8, probes=64)["layers"]
    dense, places = reference.hessian(case), reference.layers(case)
    assert [layer["name"] for layer in found] == list(places)
    for layer, place in zip(found, places.values(), strict=True):
        own = dense[place, place]
        largest = float(torch.linalg.eigvalsh(own)[-1])
        assert layer["lambda_max"]["value"] == pytest.approx(largest, rel=1e-7, abs=1e-12)
        trace = layer["trace"]
        assert abs(trace["value"] - float(own.trace())) < 5 * trace["stderr"] + 1e-12
        assert layer["n_parameters"] == len(own)


def test_cross_fit_stands_beside_every_eigenvalue():
    case = nets.mlp()
    for entry in record(case, top=3)["eigenvalues"]:
        assert set(entry["cross_fit"]) == {"value", "stderr"}
        assert entry["cross_fit"]["value"] <= 1.5 * abs(entry["value"])
    single = measured(Problem(case.model, case.loss, case.batches(nets.N)), SharpnessSettings())
    assert "cross_fit" not in single.document["eigenvalues"][0]


def test_eigenvectors_come_with_the_values():
    case = nets.mlp()
    found = measured(Problem(*case.problem), SharpnessSettings(top=3, tol=1e-8))
    vectors, dense = found.vectors, reference.hessian(case)
    values = torch.tensor([entry["value"] for entry in found.document["eigenvalues"]])
    torch.testing.assert_close(dense @ vectors, vectors * values, rtol=1e-6, atol=1e-7)
    assert sum(shape.numel() for shape in found.parameters.values()) == len(vectors)


def test_a_start_changes_only_the_cost():
    case = nets.mlp()
    problem = Problem(*case.problem)
    cold = measured(problem, SharpnessSettings(top=2, tol=1e-6))
    warm = measured(problem, SharpnessSettings(top=2, tol=1e-6), start=cold.vectors)
    for a, b in zip(cold.document["eigenvalues"], warm.document["eigenvalues"], strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6)


def test_a_deadline_gives_the_best_there_is():
    case = nets.mlp()
    found = measured(Problem(*case.problem), SharpnessSettings(tol=1e-12), deadline=0.0).document
    assert found["stop"] == "time"
    truth = torch.linalg.eigvalsh(reference.hessian(case))
    for entry in found["eigenvalues"]:
        away = float((truth - entry["value"]).abs().min())
        assert away <= entry["residual_norm"] * (1 + 1e-9)


@pytest.mark.parametrize("options", [{"operator": "fisher-mc"}, {"trace_tol": 0.05}])
def test_other_requests_work(options):
    found = record(nets.mlp(), **options)
    if "trace_tol" in options:
        assert found["trace"]["stderr"] <= 0.05 * abs(found["trace"]["value"])
    assert found["trace"]["value"] > 0


def test_a_radius_without_a_value_does_not_cost_the_others():
    case = nets.mlp()
    wall = 1.05 * float(case.model(case.inputs).detach().abs().max())

    def walled(outputs, targets):
        return case.loss(outputs, targets) * (1.0 if outputs.abs().max() < wall else torch.inf)

    text = "expected:scale=none,sigma=0.0001"
    problem = Problem(case.model, walled, case.batches())
    found = measured(problem, SharpnessSettings(metrics=[text], curves=True)).document["metrics"][
        text
    ]
    assert found["value"] is not None
    assert found["curve"]["radii"] == [0.003, 0.01, 0.02, 0.05]
    assert found["curve"]["values"][0] is not None
    assert found["curve"]["values"][-1] is None


def test_products_of_metrics_are_counted():
    case = nets.mlp()
    plain, more = (
        record(case, metrics=names, options=Options(strategy="graph"))["cost"]["matvecs"]
        for names in ([], ["fisher_rao"])
    )
    assert more == plain + 1
    other = record(case, operator="ggn", metrics=["w_h_w"], options=Options(strategy="graph"))
    assert (
        other["cost"]["matvecs"]
        > record(case, operator="ggn", options=Options(strategy="graph"))["cost"]["matvecs"]
    )


def test_what_does_not_fit_into_the_time_is_null_and_says_why():
    case = nets.mlp()
    asked = SharpnessSettings(metrics=["expected", "worst_case", "lambda_max", "layer_lambda_max"],
                    per_layer=True)  # fmt: skip
    found = measured(Problem(*case.problem), asked, deadline=0.0).document
    assert found["trace"]["stop"] == "time"
    for name in ("expected", "worst_case", "layer_lambda_max"):
        assert found["metrics"][name]["value"] is None
        assert "time budget" in found["metrics"][name]["why"]
    assert [layer["name"] for layer in found["layers"]] == ["0", "3", "5"]
    for entry in (*found["layers"], *(pair["cross_fit"] for pair in found["eigenvalues"])):
        assert "time budget" in entry["why"]
    assert all(layer["lambda_max"] is layer["trace"] is None for layer in found["layers"])


def test_a_deadline_ends_a_metric_in_the_middle_and_gives_the_weights_back():
    case = nets.mlp()
    before = nets.state(case.model)
    began = time.monotonic()
    asked = SharpnessSettings(metrics=["expected:draws=1000000", "gradient_norm"])
    found = measured(Problem(*case.problem), asked, deadline=began + 3).document
    assert time.monotonic() - began < 10  # it would take minutes
    assert [found["metrics"][name]["value"] for name in asked.metrics] == [None, None]
    assert nets.state(case.model) == before


def test_covariance_has_no_layers_and_says_so_before_any_work():
    with pytest.raises(InputError, match="per-layer"):
        SharpnessSettings(operator="covariance", per_layer=True)
