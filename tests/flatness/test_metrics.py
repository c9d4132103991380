import contextlib
import dataclasses
import json
from collections.abc import Callable

import nets
import numpy as np
import pytest
import reference
import torch
from torch import nn

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS, Measurement
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import Noise

CASES = {**nets.CASES, "quadratic": nets.quadratic, "relu": nets.relu}
# What holds whatever the network is asked of those that have the most to lose: BatchNorm in mixed
# modes, tied and frozen parameters; and of the two that some metrics refuse.
FEW = ["conv_batchnorm", "tied", "frozen", "regression", "embedding"]


def measure(name: str, case: nets.Case, **options) -> Measurement:
    return on(name, *case.problem, **options)


def on(name: str, *problem, **options) -> Measurement:
    return METRICS[name](Problem(*problem), **{**reference.METRICS[name].needs, **options})


@pytest.fixture(params=METRICS)
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("net", CASES)
def test_equals_its_literal_reading(name, net):
    truth, case = reference.METRICS[name], CASES[net]()
    if net in truth.refused:
        with pytest.raises(InputError) as raised:
            measure(name, case, **truth.settings)
        assert not str(raised.value).startswith(name)  # who reports it says which metric it was
        return
    found = measure(name, case, **truth.settings)
    assert abs(found.value - truth.value(case)) <= truth.tolerance(found)


def test_no_reading_without_a_metric():
    assert set(reference.METRICS) == set(METRICS)


@pytest.mark.parametrize("net", FEW)
def test_model_comes_back_untouched(name, net):
    case = nets.with_state(CASES[net]())
    before = nets.state(case.model)
    refused = net in reference.METRICS[name].refused
    with pytest.raises(InputError) if refused else contextlib.nullcontext():
        measure(name, case)
    assert nets.state(case.model) == before


@pytest.mark.parametrize(
    ("net", "when"),
    [("conv_batchnorm", 0.0), ("frozen", 0.3), ("conv_batchnorm", 0.6), ("mlp", 1.0)],
)
def test_model_comes_back_untouched_after_an_error(name, net, when):
    case = nets.with_state(CASES[net]())
    before = nets.state(case.model)
    counting = nets.RaisesAfter(case.loss, -1)
    on(name, case.model, counting, case.batches())
    failing = nets.RaisesAfter(case.loss, round(when * (counting.count - 1)))
    if counting.count == 0:  # a metric of the outputs: the model raises instead
        case.model.register_forward_hook(lambda *_: failing(None, None))
        failing.left = 0
    with pytest.raises(KeyboardInterrupt):
        on(name, case.model, failing, case.batches())
    assert nets.state(case.model) == before


def test_a_seed_repeats_and_the_global_state_is_not_touched(name):
    case = nets.mlp()
    first = measure(name, case, seed=5)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert measure(name, case, seed=5) == first
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("size", [4, 1])
def test_batch_size_is_no_setting(name, size):
    # exactly the same quantity whatever the batches; random metrics by common random numbers
    case = nets.mlp()
    whole, split = (on(name, case.model, case.loss, case.batches(n)).value for n in (nets.N, size))
    # eigenvalues are right to their residual's square over the gap; the rest to rounding
    rel = 1e-5 if name == "lambda_max" else 1e-9
    assert split == pytest.approx(whole, rel=rel)


def test_measured_in_the_precision_of_the_model(name):
    case = nets.mlp()
    found = measure(name, case, seed=2)
    double = found.value
    model, inputs = case.model.float(), case.inputs.float()
    single = on(name, model, case.loss, [(inputs, case.targets)], seed=2).value
    assert single != double or of_accuracy(found)
    if found.settings["error"] != "draws" and name != "trace":  # draws depend on the precision
        assert single == pytest.approx(double, rel=1e-3)  # float32, differences of losses


def test_is_a_json_answer_with_its_settings(name):
    found = measure(name, nets.mlp())
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    assert found.settings["error"] in ("examples", "draws", "probes")
    assert found.stderr > 0 or of_accuracy(found)


def test_settings_are_those_that_are_given(name):
    given = reference.METRICS[name].settings
    assert measure(name, nets.mlp(), **given).settings.items() >= given.items()


# --- errors ---


def of_accuracy(found: Measurement) -> bool:
    """Counts right examples, so that small changes may leave no trace."""
    return found.settings.get("of") == "accuracy"


def test_error_over_examples_needs_two_batches(name):
    case = nets.mlp()
    one = on(name, case.model, case.loss, case.batches(nets.N))
    assert (one.stderr is None) == (one.settings["error"] == "examples")


def error_of_batch_means(values: list[float]) -> float:
    """For batches of 4, 4 and 3 of 11 examples."""
    shares = np.array([4, 4, 3]) / 11
    mean = (shares * values).sum()
    return float(((shares * (np.array(values) - mean) ** 2).sum() / 2) ** 0.5)


def test_error_of_fisher_rao():
    case = nets.mlp()
    products = reference.example_gradients(case) @ reference.flat_weights(case.model)
    means = [float(part.square().mean()) for part in products.split(4)]
    found = measure("fisher_rao", case)
    assert found.stderr == pytest.approx(error_of_batch_means(means), rel=1e-9)


def test_error_of_sam():
    case = nets.mlp()
    w, g = reference.flat_weights(case.model), reference.gradient(case)
    singles = [nets.Case(case.model, case.loss, x, y) for x, y in case.batches()]
    moved = w + 0.1 * g / g.norm()
    rises = [reference.loss_at(one, moved) - reference.loss_at(one, w) for one in singles]
    found = measure("sam", case, rho=0.1)
    assert found.stderr == pytest.approx(error_of_batch_means(rises), rel=1e-8)


def test_error_of_expected_is_that_of_the_draws():
    case = nets.mlp()
    noise = Noise(law="gaussian", scale="weight")
    draws = reference.noise_draws(case, noise, 0.2, 6, seed=1)
    rises = np.array([reference.expected(case, [draw]) for draw in draws])
    found = measure("expected", case, sigma=0.2, draws=6, seed=1)
    assert found.stderr == pytest.approx(rises.std(ddof=1) / 6**0.5, rel=1e-7)


@pytest.mark.parametrize("name", ["expected", "trace"])
def test_error_of_random_metrics_covers_the_mean(name):
    case = nets.quadratic()
    if name == "expected":
        truth, options = quadratic_expected(case, 0.3, lambda w: w), {"sigma": 0.3, "draws": 20}
    else:
        truth, options = float(reference.hessian(case).trace()), {"probes": 20}
    found = [measure(name, case, seed=seed, **options) for seed in range(200)]
    # 95% of Student's t with 19 degrees; skewed draws cost a little, 200 runs know it to 1.5%
    inside = sum(abs(one.value - truth) <= 2.093 * one.stderr for one in found) / 200
    assert 0.88 <= inside <= 0.99


# --- zero strength and bad settings ---


@pytest.mark.parametrize(
    ("name", "strength"), [("expected", "sigma"), ("sam", "rho"), ("adaptive_worst", "rho")]
)
@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "regression"])
def test_no_strength_is_exactly_zero(name, strength, net):
    found = measure(name, nets.with_state(CASES[net]()), **{strength: 0.0})
    assert found.value == 0.0
    assert found.stderr == 0.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("expected", {"sigma": -0.1}),
        ("expected", {"sigma": float("nan")}),
        ("expected", {"draws": 1}),
        ("expected", {"law": "gauss"}),
        ("expected", {"scale": "tensor"}),
        ("sam", {"rho": -0.1}),
        ("sam", {"rho": float("nan")}),
        ("adaptive_worst", {"rho": -0.1}),
        ("adaptive_worst", {"rho": float("nan")}),
        ("adaptive_worst", {"steps": 0}),
        ("trace", {"probes": 1}),
        ("lambda_max", {"tol": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name, options):
    case = nets.with_state(nets.mlp())
    before = nets.state(case.model)
    with pytest.raises(InputError):
        measure(name, case, **options)
    assert nets.state(case.model) == before


@pytest.mark.parametrize(
    ("name", "strength"), [("expected", "sigma"), ("sam", "rho"), ("adaptive_worst", "rho")]
)
def test_infinite_strength_is_refused(name, strength):
    with pytest.raises(InputError):
        measure(name, nets.mlp(), **{strength: float("inf")})


def test_no_gradient_no_ascent():
    case = nets.quadratic()
    solution = torch.linalg.lstsq(case.inputs, case.targets).solution.T
    with torch.no_grad():
        case.model.weight.copy_(solution)
    # at the minimum the gradient is rounding, its direction arbitrary; the rise is curvature's
    top = float(torch.linalg.eigvalsh(reference.hessian(case))[-1])
    assert 0 <= measure("sam", case, rho=0.1).value <= 0.1**2 * top / 2 * (1 + 1e-9)
    case.model.weight.data.zero_()
    zero = nets.Case(case.model, case.loss, case.inputs, torch.zeros_like(case.targets))
    assert measure("sam", zero).value == 0.0  # gradient exactly zero
    assert measure("adaptive_worst", zero).value == 0.0


# --- closed forms ---


def quadratic_expected(case: nets.Case, sigma: float, size: Callable) -> float:
    """½ σ² Σ s_i² H_ii, s the sizes of the noise."""
    sizes = size(reference.flat_weights(case.model))
    return float(sigma**2 / 2 * (sizes**2 * reference.hessian(case).diag()).sum())


@pytest.mark.parametrize(
    ("scale", "size"), [("weight", torch.abs), ("none", torch.ones_like)], ids=["weight", "none"]
)
@pytest.mark.parametrize("law", ["gaussian", "binary", "uniform"])
def test_expected_on_a_quadratic(law, scale, size):
    case = nets.quadratic()
    found = measure("expected", case, sigma=0.3, law=law, scale=scale, draws=400)
    truth = quadratic_expected(case, 0.3, size)
    assert abs(found.value - truth) <= 4 * found.stderr
    assert found.stderr < 0.2 * truth  # else the line above says little


@pytest.mark.parametrize("law", ["gaussian", "binary", "uniform", "sphere"])
@pytest.mark.parametrize("scale", ["weight", "filter", "layer", "none"])
def test_antithetic_pairs_leave_exactly_half_the_curvature(law, scale):
    case, draws = nets.quadratic(), 5
    perturbations = reference.noise_draws(case, Noise(law=law, scale=scale), 0.3, draws, seed=4)
    H = reference.hessian(case)
    truth = np.array([float(z @ H @ z) / 2 for z in perturbations])
    found = measure("expected", case, sigma=0.3, law=law, scale=scale, draws=draws, seed=4)
    # exact up to the cancellation of losses of order one
    assert found.value == pytest.approx(truth.mean(), rel=1e-11)
    assert found.stderr == pytest.approx(truth.std(ddof=1) / draws**0.5, rel=1e-9)


@pytest.mark.parametrize("rho", [0.01, 0.5, 3.0])
def test_sam_on_a_quadratic(rho):
    case = nets.quadratic()
    g, H = reference.gradient(case), reference.hessian(case)
    truth = rho * g.norm() + rho**2 / 2 * (g @ H @ g) / g.norm() ** 2
    assert measure("sam", case, rho=rho).value == pytest.approx(float(truth), rel=1e-11)


@pytest.mark.parametrize("rho", [0.1, 0.5, 2.0])
def test_adaptive_worst_of_one_weight(rho):
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(2.0)
    one = torch.ones(1, 1, dtype=torch.float64)
    # L = (w − 1)² at w = 2: the worst of w = 2 + 2u, |u| ≤ ρ, is at u = ρ
    found = METRICS["adaptive_worst"](Problem(model, nets.mse, [(one, one)]), rho=rho)
    assert found.value == pytest.approx((1 + 2 * rho) ** 2 - 1, rel=1e-12)


def test_adaptive_worst_finds_the_maximum_of_a_quadratic():
    case, rho = nets.quadratic(), 0.5
    found = measure("adaptive_worst", case, rho=rho, steps=300).value
    w = reference.flat_weights(case.model).abs()
    curvature = w[:, None] * reference.hessian(case) * w
    truth = reference.sphere_maximum(w * reference.gradient(case), curvature, rho)
    assert found <= truth * (1 + 1e-9)  # a lower bound
    assert found == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "relu"])
def test_more_ascent_never_finds_less(net):
    case = CASES[net]()
    found = [measure("adaptive_worst", case, steps=steps).value for steps in (1, 2, 5, 20)]
    assert found == sorted(found)
    assert found[-1] > found[0] > 0


def test_adaptive_worst_with_setbacks():
    # on this ReLU net several of 15 long steps do not rise, so the step is halved and taken back
    case = nets.relu()
    truth = reference.adaptive_worst(case, 1.5, 15)
    found = measure("adaptive_worst", case, rho=1.5, steps=15, starts=1).value
    assert found == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("rho", [0.1, 0.5])
def test_adaptive_worst_beats_random_points_of_its_ball(rho):
    case = nets.mlp()
    w = reference.flat_weights(case.model)
    base = reference.loss_at(case, w)
    found = measure("adaptive_worst", case, rho=rho).value
    for seed in range(50):
        u = nets.randn(len(w), seed=seed)
        assert reference.loss_at(case, w + w.abs() * u * rho / u.norm()) - base < found


def test_fisher_rao_of_a_bias_free_relu_net():
    case = nets.relu(bias=False)
    outputs = case.model(case.inputs).detach()
    # cross-entropy of each example by its own outputs: softmax − one-hot
    slopes = outputs.softmax(dim=1) - nn.functional.one_hot(case.targets, 3)
    inner = (slopes * outputs).sum(dim=1)
    truth = 3**2 * float(inner.square().mean())  # two hidden layers: L + 1 = 3
    assert measure("fisher_rao", case).value == pytest.approx(truth, rel=1e-11)


# --- common random numbers ---


def another(case: nets.Case) -> nets.Case:
    """The same problem at other weights."""
    model = nets.evaluated(case.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.7).add_(0.3)
    return dataclasses.replace(case, model=model)


@pytest.mark.parametrize("law", ["gaussian", "binary", "uniform", "sphere"])
def test_one_seed_gives_two_models_the_same_draws(law):
    # on a quadratic, absolute noise measures the same zᵀHz wherever the weights are
    case = nets.quadratic()
    options = {"scale": "none", "law": law, "draws": 3, "sigma": 0.5}
    values = [measure("expected", one, seed=7, **options).value for one in (case, another(case))]
    assert values[0] == pytest.approx(values[1], rel=1e-10)
    other = measure("expected", case, seed=8, **options).value
    # uncorrelated draws differ by far more than rounding (binary too: H is not diagonal)
    assert abs(other - values[0]) > 1e-4 * values[0]


def test_one_seed_gives_two_models_the_same_probes():
    case = nets.quadratic()
    first, second = (measure("trace", one, seed=7, probes=4) for one in (case, another(case)))
    assert first.value == pytest.approx(second.value, rel=1e-12)
    assert measure("trace", case, seed=8, probes=4).value != pytest.approx(first.value, rel=1e-6)


def test_the_documented_stream_is_the_one_used():
    # what reference.noise_draws rests on: one named stream a metric
    assert seeds.derive(3, "perturbations") != seeds.derive(3, "trace")


def test_adaptive_worst_leaves_an_exact_stationary_point():
    """At a minimum the gradient is zero, the curvature is not."""
    model = torch.nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.0)
    x = 30 * torch.eye(2, dtype=torch.float64)
    found = METRICS["adaptive_worst"](
        Problem(model, torch.nn.functional.mse_loss, [(x, x.sum(1, keepdim=True))])
    )
    assert found.value > 1.0
