"""Metrics of the function, of accuracy and of the basin's radius; and what they stand on."""

import math
from collections.abc import Callable

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness import METRICS, Measurement, curve, difference
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.crossing import crossing
from ssgd_analysis.flatness.curve import curve_on
from ssgd_analysis.flatness.measurement import of_median
from ssgd_analysis.flatness.metrics.quantization_drop import rounded_to
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import Noise

ALL = ("input_jacobian", "margin", "quantization_drop", "noise_robustness", "volume")


def measure(name: str, case: nets.Case, **options) -> Measurement:
    return METRICS[name](Problem(*case.problem), **options)


def linear(outputs: int = 3, count: int = nets.N) -> nets.Case:
    with nets.seeded():
        model = nn.Linear(4, outputs).double()
    return nets.Case(model, nets.cross_entropy, nets.randn(count, 4), nets.labels(count))


def scaled(case: nets.Case, factor: float) -> nets.Case:
    """The same model with its last layer's outputs by a factor."""
    with torch.no_grad():
        for parameter in list(case.model.modules())[-1].parameters():
            parameter.mul_(factor)
    return case


# --- input_jacobian ---


def test_jacobian_of_a_linear_model_is_its_matrix():
    case = linear()
    found = measure("input_jacobian", case)
    assert found.value == pytest.approx(float(case.model.weight.detach().norm()), rel=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-12)  # the same for every example
    assert found.settings["exact"]
    assert found.cost.gradients == pytest.approx(3)


def test_jacobian_of_softmax():
    """∂p/∂x = (diag p − p pᵀ) W."""
    case = linear()
    weight = case.model.weight.detach()
    truth = [
        float(((torch.diag(p) - torch.outer(p, p)) @ weight).norm())
        for p in case.model(case.inputs).detach().softmax(dim=1)
    ]
    found = measure("input_jacobian", case, of="softmax")
    assert found.value == pytest.approx(np.mean(truth), rel=1e-11)
    means = [np.mean(truth[:4]), np.mean(truth[4:8]), np.mean(truth[8:])]
    shares = np.array([4, 4, 3]) / 11
    error = ((shares * (means - shares @ means) ** 2).sum() / 2) ** 0.5  # of three batch means
    assert found.stderr == pytest.approx(error, rel=1e-9)


def test_jacobian_grows_with_the_logits():
    before, after = measure("input_jacobian", nets.mlp()), scaled(nets.mlp(), 3.0)
    assert measure("input_jacobian", after).value == pytest.approx(3 * before.value, rel=1e-11)


def test_jacobian_by_random_projections():
    """At rank one E of the root of the mean of 16 χ² is 1 − 1/(4 · 16) to first order."""
    model = nn.Linear(4, 64, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.ones(64, 1, dtype=torch.float64) * nets.randn(1, 4))
    case = nets.Case(model, nets.mse, nets.randn(4000, 4), torch.zeros(4000, 64).double())
    batches = case.batches(500)
    norm = float(model.weight.detach().norm())
    found = METRICS["input_jacobian"](Problem(model, case.loss, batches), probes=16)
    assert not found.settings["exact"]
    assert found.cost.gradients == pytest.approx(16)
    # 4000 roots that scatter by 1/√32 of themselves know the mean to 0.3%: four of these
    assert found.value == pytest.approx((1 - 1 / 64) * norm, rel=0.012)
    exact = METRICS["input_jacobian"](Problem(model, case.loss, batches), probes=64)
    assert exact.value == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("net", ["embedding", "attention"])
def test_no_derivative_by_integers(net):
    with pytest.raises(InputError, match="not floating-point numbers"):
        measure("input_jacobian", nets.CASES[net]())


def test_jacobian_does_not_need_gradients_of_inputs_or_weights():
    case = nets.frozen()
    case.inputs.requires_grad_()
    before = nets.state(case.model)
    assert measure("input_jacobian", case).value > 0
    assert case.inputs.grad is None
    assert nets.state(case.model) == before


# --- margin ---


def known() -> nets.Case:
    """Outputs are the inputs: margins by hand."""
    model = nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    inputs = torch.tensor([[3, 1, -1], [0, 2, 1], [5, 0, 1], [1, 1, 4]], dtype=torch.float64)
    return nets.Case(model, nets.cross_entropy, inputs, torch.tensor([0, 2, 0, 2]))


def test_margins_by_hand():
    case = known()
    raw = measure("margin", case, normalise="none")
    margins, spread = [2, -1, 4, 3], [8, 2, 14, 6]  # spread: Σ (f − mean)²
    assert raw.value == pytest.approx(np.mean(margins), rel=1e-12)
    assert raw.details["quantiles"]["0.0"] == -1
    assert raw.details["quantiles"]["1.0"] == 4
    assert raw.details["median"] == pytest.approx(2.5)
    assert raw.details["wrong"] == 0.25
    scale = np.mean(spread) ** 0.5
    found = measure("margin", case)
    assert found.details["scale"] == pytest.approx(scale, rel=1e-12)
    assert found.value == pytest.approx(np.mean(margins) / scale, rel=1e-12)


def test_margin_forgets_the_scale_of_the_logits_only_when_normalised():
    for normalise, factor in (("logits", 1), ("none", 3)):
        before = measure("margin", nets.mlp(), normalise=normalise)
        after = measure("margin", scaled(nets.mlp(), 3.0), normalise=normalise)
        assert after.value == pytest.approx(factor * before.value, rel=1e-11)
        assert after.details["median"] == pytest.approx(factor * before.details["median"])
        assert after.stderr == pytest.approx(factor * before.stderr, rel=1e-9)


def test_error_of_margin_knows_that_the_scale_is_estimated():
    """Against leaving out one batch at a time, which knows nothing of ratios."""
    case = linear(count=800)
    problem = [nets.Case(case.model, case.loss, x, y) for x, y in case.batches(8)]
    every = range(100)
    values = [reference.margin(case)]

    def without(left: int) -> float:
        kept = [problem[i] for i in every if i != left]
        inputs, targets = (torch.cat([getattr(k, n) for k in kept]) for n in ("inputs", "targets"))
        return reference.margin(nets.Case(case.model, case.loss, inputs, targets))

    values = np.array([without(left) for left in every])
    jackknife = (99 / 100 * ((values - values.mean()) ** 2).sum()) ** 0.5
    found = METRICS["margin"](Problem(case.model, case.loss, case.batches(8)))
    assert found.stderr == pytest.approx(jackknife, rel=0.02)  # both to order 1/100
    assert np.mean(found.samples) == pytest.approx(found.value, rel=1e-9)


def test_margin_of_what_has_none():
    case = nets.mlp()
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.zero_()
    with pytest.raises(InputError, match="no margin"):
        measure("margin", case)
    with pytest.raises(InputError, match="not class labels"):
        measure("margin", nets.regression())
    foreign = nets.Case(nets.mlp().model, lambda o, t: o.square().mean(), case.inputs, case.targets)
    foreign.targets[0] = 7
    with pytest.raises(InputError, match="labels should be from 0 to 2"):
        measure("margin", foreign)
    foreign.targets[0] = 0
    with torch.no_grad():
        case.model[0].weight.fill_(math.nan)
    with pytest.raises(WorkError, match="not finite"):
        measure("margin", case)


# --- quantization_drop ---


def test_rounding_by_hand():
    weight = torch.tensor([[7.0, 3.4, -2.6, 0.2], [0.0, 0.0, 0.0, 0.0], [-1.0, 0.7, 0.2, -0.45]])
    # four bits: seven steps a side; two bits: one
    assert rounded_to(weight, 4)[0].tolist() == [7.0, 3.0, -3.0, 0.0]
    assert rounded_to(weight, 4)[1].tolist() == [0.0] * 4
    assert rounded_to(weight, 2)[2].tolist() == [-1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounding_has_its_levels_and_its_error(bits):
    weight = nets.randn(5, 300)
    rounded = rounded_to(weight, bits)
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-12)).all()
    # the same levels may come out of other roundings
    assert all(
        len((row / s).round().unique()) <= 2**bits - 1 for row, s in zip(rounded, step, strict=True)
    )
    torch.testing.assert_close(rounded_to(rounded, bits), rounded, rtol=1e-12, atol=0)


def test_weights_on_the_grid_lose_nothing():
    case = nets.mlp()
    with torch.no_grad():
        for layer in (0, 3, 5):
            case.model[layer].weight.copy_(rounded_to(case.model[layer].weight, 3))
    found = measure("quantization_drop", case, bits=3)
    assert found.value == 0
    assert found.details["relative_size"] < 1e-12
    assert measure("quantization_drop", case, bits=4).details["relative_size"] > 1e-3


def test_biases_are_not_rounded():
    case = nets.mlp()
    with torch.no_grad():
        for layer in (0, 3, 5):
            case.model[layer].weight.zero_()  # nothing else to round
    found = measure("quantization_drop", case, bits=2)
    assert found.details == {"loss_rise": 0.0, "relative_size": 0.0}


def test_curve_over_bits():
    context = MetricContext(Problem(*nets.trained().problem))
    points = curve_on(context, "quantization_drop")
    assert [bits for bits, _ in points] == [8, 7, 6, 5, 4, 3, 2]
    sizes = [found.details["relative_size"] for _, found in points]
    assert sizes == sorted(sizes)
    assert abs(points[0][1].value) < 0.05  # eight bits lose next to nothing
    assert points[-1][1].value > 0.05  # two do
    assert context.cost.forwards == 8  # the clean one once


@pytest.mark.parametrize("name", ["quantization_drop", "noise_robustness"])
def test_accuracy_does_not_know_the_scale_of_the_logits(name):
    options = {"bits": 2} if name == "quantization_drop" else {"sigma": 0.5}
    before, after = measure(name, nets.trained(), **options), scaled(nets.trained(), 4.0)
    assert before.value > 0.05
    assert measure(name, after, **options).value == pytest.approx(before.value, rel=1e-9)


# --- noise_robustness ---


def test_noise_robustness_grows_along_its_curve():
    problem = Problem(*nets.trained().problem)
    values = [found.value for _, found in curve(problem, "noise_robustness", (0.1, 0.4, 1.6))]
    assert values == sorted(values)
    assert values[-1] > 0.2


@pytest.mark.parametrize("net", ["regression", "quadratic"])
def test_without_labels_it_is_the_expected_rise(net):
    case = {**nets.CASES, "quadratic": nets.quadratic}[net]()
    found = measure("noise_robustness", case, sigma=0.3)
    assert found.settings["of"] == "loss"
    assert found.value == measure("expected", case, sigma=0.3).value
    assert measure("quantization_drop", case).settings["of"] == "loss"


# --- volume ---


@pytest.mark.parametrize("rise", [0.01, 0.5, 20.0])
def test_volume_of_a_quadratic(rise):
    """Both sides of b a + ½ q a² = rise: their mean is √(b² + 2 q rise)/q."""
    case, directions = nets.quadratic(), 15
    H, g = reference.hessian(case), reference.gradient(case)
    stream, radii = torch.Generator().manual_seed(0), []
    stream = MetricContext(Problem(*case.problem)).generator("volume")
    noise = Noise(law="sphere", scale="filter")
    for _ in range(directions):
        d = noise.sample(case.model.weight.detach(), stream).reshape(-1)
        b, q = float(g @ d), float(d @ H @ d)
        radii.append((b**2 + 2 * q * rise) ** 0.5 / q)
    found = measure("volume", case, rise=rise, directions=directions, tolerance=1e-3)
    # interpolated in a bracket of 0.1%: off by 3/8 of its square at most, as 2 + |b|/(b + q a) ≤ 3
    assert found.value == pytest.approx(np.median(radii), rel=4e-7)
    assert found.details["quantiles"]["1.0"] == pytest.approx(max(radii), rel=4e-7)
    assert found.details["unreached"] == 0
    wide = measure("volume", case, rise=rise, directions=directions)  # 1%
    assert wide.value == pytest.approx(np.median(radii), rel=4e-5)
    # the error is that of the directions alone, to what the bracket leaves of the distances
    assert wide.stderr == pytest.approx(found.stderr, abs=1e-4 * wide.value)


def test_flatter_is_farther():
    assert METRICS["volume"].flatter == "higher"
    case = nets.quadratic()
    with torch.no_grad():
        case.targets.copy_(case.model(case.inputs))  # at the minimum
    sharp = nets.Case(case.model, case.loss, 3 * case.inputs, 3 * case.targets)
    found, other = (measure("volume", one, tolerance=1e-4).value for one in (case, sharp))
    assert found == pytest.approx(3 * other, rel=1e-4)  # 1/√curvature


def bounded(limit: float) -> Callable[[nn.Module, Tensor], Tensor]:
    """A loss that never rises above a limit."""
    return lambda model, batch: limit * torch.tanh(model.weight.square().sum())


def test_a_loss_that_does_not_rise_so_far():
    model = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.1)
    batch = torch.ones(1, 2)
    assert METRICS["volume"](Problem(model, bounded(1.0), [batch]), rise=0.5).value > 0
    with pytest.raises(InputError, match="smaller rise"):
        METRICS["volume"](Problem(model, bounded(1.0), [batch]), rise=2.0)


def test_a_loss_that_rises_at_once_has_no_radius():
    model = nn.Linear(2, 2, bias=False).double()
    start = model.weight.detach().clone()

    def cliff(model: nn.Module, batch: Tensor) -> Tensor:
        return ((model.weight - start).abs().max() > 1e-9).double()

    with pytest.raises(InputError, match=r"within 0\.0001 times the weights.*larger rise"):
        METRICS["volume"](Problem(model, cliff, [torch.ones(1, 2)]), rise=0.5)


# --- the loss takes the model; bad settings ---


def with_model(model: nn.Module, batch: dict) -> Tensor:
    return nets.cross_entropy(model(batch["x"]), batch["y"])


@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_takes_the_model(name):
    case = nets.mlp()
    batches = [{"x": x, "y": y} for x, y in case.batches()]
    if name in ("input_jacobian", "margin"):
        with pytest.raises(InputError, match="needs the model's outputs"):
            METRICS[name](Problem(case.model, with_model, batches))
        return
    found = METRICS[name](Problem(case.model, with_model, batches))
    assert found.settings.get("of", "loss") == "loss"
    assert math.isfinite(found.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("input_jacobian", {"of": "loss"}),
        ("input_jacobian", {"probes": 1}),
        ("margin", {"normalise": "norm"}),
        ("quantization_drop", {"bits": 1}),
        ("quantization_drop", {"bits": 17}),
        ("noise_robustness", {"sigma": -0.1}),
        ("noise_robustness", {"sigma": math.inf}),
        ("noise_robustness", {"draws": 1}),
        ("noise_robustness", {"law": "cauchy"}),
        ("volume", {"rise": 0.0}),
        ("volume", {"rise": math.nan}),
        ("volume", {"directions": 1}),
        ("volume", {"tolerance": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name, options):
    with pytest.raises(InputError) as raised:
        measure(name, nets.mlp(), **options)
    assert not str(raised.value).startswith(name)  # who reports it says which metric it was


# --- crossing ---


@pytest.mark.parametrize("level", [1e-4, 0.02, 3.0, 500.0])
def test_crossing_of_a_parabola(level):
    found = crossing(lambda a: a**2, level, start=0.1, limit=100, tolerance=1e-6)
    assert found.low**2 <= level < found.high**2
    assert found.high <= found.low * (1 + 1e-6)
    # a straight line is off by f''/(8 f') of the squared width, on a logarithmic scale 1/4
    wide = crossing(lambda a: a**2, level, start=0.1, limit=100, tolerance=0.01)
    assert wide.crossed == pytest.approx(level**0.5, rel=0.01**2 / 4)
    assert wide.low < wide.crossed < wide.high


@pytest.mark.parametrize("there", [1.0, math.nan, math.inf])
def test_crossing_of_steps_and_of_what_is_not_a_number(there):
    found = crossing(
        lambda a: there if a >= 0.7 else 0.0, 0.5, start=0.1, limit=100, tolerance=1e-3
    )
    assert found.low < 0.7 <= found.high
    assert found.crossed == pytest.approx(found.middle, rel=1e-3)
    assert found.middle**2 == pytest.approx(found.low * found.high)


def test_crossing_that_is_not_there_is_sought_up_to_the_limits():
    tried = []

    def seen(value: float) -> Callable[[float], float]:
        return lambda a: tried.append(a) or value

    never = crossing(seen(0.0), 1, start=0.1, limit=100, tolerance=0.1)
    assert (never.low, never.high, never.middle, never.crossed) == (100, *3 * (math.inf,))
    always = crossing(seen(2.0), 1, start=0.1, limit=100, tolerance=0.1)
    assert (always.low, always.high, always.middle, always.crossed) == (0, min(tried), 0, 0)
    assert max(tried) == 100
    assert min(tried) == pytest.approx(1e-4, rel=1e-12)


def test_no_tolerance_asks_for_more_than_floating_point_has():
    tried = []

    def rise(a: float) -> float:
        tried.append(a)
        assert len(tried) < 1000
        return a**2

    found = crossing(rise, 2.0, start=0.1, limit=100, tolerance=1e-17)
    assert found.high == math.nextafter(found.low, 2)
    assert found.low <= 2**0.5 <= found.high


# --- the median ---


@pytest.mark.parametrize("count", [20, 21])
def test_error_of_a_median_covers_it(count):
    random = np.random.default_rng(0)
    found = [of_median(random.exponential(size=count), {}) for _ in range(2000)]
    inside = np.mean([abs(one.value - math.log(2)) <= 2.09 * one.stderr for one in found])
    assert 0.9 <= inside <= 0.97  # 95% by Student's t, but two order statistics know it less well
    for one in found[:10]:
        assert np.mean(one.samples) == pytest.approx(one.value, rel=1e-9)


@pytest.mark.parametrize(
    "values",
    [
        [3.0, 1.0, 2.0, 5.0, 4.0],  # one draw is the median
        [1.0, 2.0, 2.0, 2.0, 3.0, 7.0],  # ties
        [1.0, 2.0, 2.0, 2.0, 2.0, 9.0, 8.0, 7.0],  # more above than below
        [2.0] * 6,
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf],
    ],
)
def test_samples_of_a_median_have_its_mean_and_its_error(values):
    found = of_median(values, {})
    assert np.mean(found.samples) == pytest.approx(found.value, rel=1e-12)
    error = np.std(found.samples, ddof=1) / len(values) ** 0.5
    assert error == pytest.approx(found.stderr, rel=1e-12)


def test_medians_of_pairs():
    random = np.random.default_rng(0)
    errors, wrongs = [], []
    for _ in range(500):
        draws = random.exponential(size=40)
        other = draws * 1.1 + 0.01 * random.normal(size=40)
        value, error = difference(of_median(draws, {}), of_median(other, {}))
        errors.append(error)
        wrongs.append(value + 0.1 * math.log(2))
    unpaired = of_median(random.exponential(size=40), {}).stderr * 2**0.5
    assert np.mean(errors) < 0.5 * unpaired
    # of the right size: that of the differences themselves, within a factor of two
    assert 0.5 < np.mean(errors) / np.std(wrongs) < 2


def test_a_median_among_infinities():
    assert of_median([1.0, 2.0, 3.0, 4.0, math.inf], {}).value == 3.0
    assert of_median([1.0, 2.0, 3.0, math.inf, math.inf], {}).stderr is None
    assert of_median([1.0, math.inf, math.inf], {}).value == math.inf
