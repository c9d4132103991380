"""Metrics that average over weight noise, against closed forms on quadratics."""

import math

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness import METRICS, Measurement, difference
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import Noise


def measure(name: str, case: nets.Case, **options) -> Measurement:
    return METRICS[name](Problem(*case.problem), **options)


def coverage(truth: float, found: list[Measurement]) -> float:
    """How often the truth lies within the 95% interval of Student's t of 19 degrees."""
    inside = [abs(one.value - truth) <= 2.093 * one.stderr for one in found]
    return sum(inside) / len(inside)


def solved() -> nets.Case:
    """A quadratic at its minimum."""
    case = nets.quadratic()
    with torch.no_grad():
        case.model.weight.copy_(torch.linalg.lstsq(case.inputs, case.targets).solution.T)
    return case


def half_curvature(case: nets.Case, perturbations: list[Tensor]) -> np.ndarray:
    H = reference.hessian(case)
    return np.array([float(z @ H @ z) / 2 for z in perturbations])


# --- lpf ---


def test_lpf_of_a_quadratic_is_the_loss_and_half_the_trace():
    case = nets.quadratic()
    loss = reference.loss_at(case, reference.flat_weights(case.model))
    rise = 0.3**2 / 2 * float(reference.hessian(case).trace())
    found = measure("lpf", case, sigma=0.3, draws=400)
    assert abs(found.value - loss - rise) <= 4 * found.stderr
    assert found.stderr < 0.1 * rise  # else the line above says little
    assert found.details["rise"] == pytest.approx(found.value - loss, rel=1e-9)


def test_lpf_with_its_own_draws_is_exact():
    case = nets.quadratic()
    draws = reference.noise_draws(case, Noise(law="gaussian", scale="none"), 0.3, 6, seed=2)
    truth = half_curvature(case, draws)
    found = measure("lpf", case, sigma=0.3, draws=6, seed=2, value_of="rise")
    # exact up to the cancellation of losses of order one
    assert found.value == pytest.approx(truth.mean(), rel=1e-11)
    assert found.stderr == pytest.approx(truth.std(ddof=1) / 6**0.5, rel=1e-9)


def test_lpf_without_noise_is_the_loss():
    case = nets.mlp()
    loss = reference.loss_at(case, reference.flat_weights(case.model))
    found = measure("lpf", case, sigma=0.0)
    assert found.value == pytest.approx(loss, rel=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-15)  # fifty times the same number
    assert measure("lpf", case, sigma=0.0, value_of="rise").value == 0.0


def test_error_of_lpf_covers_the_mean():
    case = nets.quadratic()
    loss = reference.loss_at(case, reference.flat_weights(case.model))
    truth = loss + 0.3**2 / 2 * float(reference.hessian(case).trace())
    found = [measure("lpf", case, sigma=0.3, draws=20, seed=seed) for seed in range(200)]
    # skewed draws cost a little of the 95%; 200 runs know it to 1.5%
    assert 0.88 <= coverage(truth, found) <= 0.99


# --- local entropy ---


def gaussian_integral(case: nets.Case, gamma: float) -> float:
    """½ Σ log(1 + λ/γ) − ½ gᵀ(H + γI)⁻¹g: exact on a quadratic."""
    H, g = reference.hessian(case), reference.gradient(case)
    shifted = H + gamma * torch.eye(len(g), dtype=g.dtype)
    logs = torch.logdet(shifted) - len(g) * math.log(gamma)
    return float(logs - g @ torch.linalg.solve(shifted, g)) / 2


# curvature of 0.1 to 3: the Gaussian is from far narrower to far wider than the valley
@pytest.mark.parametrize("gamma", [100.0, 3.0, 0.3])
@pytest.mark.parametrize("make", [nets.quadratic, solved])
def test_local_entropy_of_a_quadratic(make, gamma):
    case = make()
    truth = gaussian_integral(case, gamma)
    found = measure("local_entropy", case, gamma=gamma, draws=60, steps=64)
    assert abs(found.value - truth) <= 4 * found.stderr
    # else the line above says little; with a gradient the terms nearly cancel
    assert found.stderr < 0.1 * max(truth, 0.5 if make is nets.quadratic else 0)


def test_local_entropy_has_the_sign_and_scale_of_its_definition():
    """−F − L(w) + (P/2) log(2π/γ) with F the integral itself, by a grid over the one weight."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.4)
    batch = torch.ones(1, 1, dtype=torch.float64)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        w = model.weight.squeeze()
        return (w**2 - 1).square() + 0.3 * w  # two valleys

    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    values, gamma = (grid**2 - 1).square() + 0.3 * grid, 1.5
    density = torch.exp(-values - gamma / 2 * (grid - 0.4) ** 2)
    free = math.log(2 * math.pi / gamma) / 2
    own = (0.4**2 - 1) ** 2 + 0.3 * 0.4
    truth = -math.log(float(torch.trapezoid(density, grid))) - own + free
    found = METRICS["local_entropy"](Problem(model, loss, [batch]), gamma=gamma, draws=1000)
    assert abs(found.value - truth) <= 4 * found.stderr
    assert found.stderr < 0.03


def test_local_entropy_far_above_the_curvature_is_the_smoothed_rise():
    case, sigma = solved(), 1e-3
    rise = sigma**2 / 2 * float(reference.hessian(case).trace())
    found = measure("local_entropy", case, gamma=sigma**-2, draws=100)
    assert abs(found.value - rise) <= 4 * found.stderr
    assert found.stderr < 0.1 * rise


def test_local_entropy_far_above_the_curvature_knows_the_slope():
    """Away from a minimum it is Tr H/(2γ) − ‖g‖²/(2γ), not the smoothed rise."""
    case, gamma = nets.quadratic(), 1e6
    rise = float(reference.hessian(case).trace()) / (2 * gamma)
    slope = float(reference.gradient(case).square().sum()) / (2 * gamma)
    found = measure("local_entropy", case, gamma=gamma, draws=400, steps=1)
    assert abs(found.value - (rise - slope)) <= 4 * found.stderr
    assert slope > 5 * found.stderr  # else the line above says little


@pytest.mark.parametrize("draws", [2, 3, 4, 40])
def test_one_draw_that_carries_the_mean_has_no_error(draws):
    case = solved()
    found = [
        measure("local_entropy", case, gamma=0.1, draws=draws, steps=1, seed=seed)
        for seed in range(10)
    ]
    alone = [one for one in found if one.details["effective"] < 1.5]
    assert alone  # with any number of draws
    assert all(one.stderr is None for one in alone)
    like = measure("local_entropy", case, gamma=1e3, draws=draws)
    assert like.stderr is not None


def test_noise_does_not_depend_on_how_weights_lie_in_memory():
    case = nets.conv_batchnorm()
    other = nets.conv_batchnorm()
    other.model.to(memory_format=torch.channels_last)
    assert not other.model[3].weight.is_contiguous()
    for name in ("local_entropy", "lpf", "symmetric_gap"):
        first, second = (measure(name, one).value for one in (case, other))
        assert second == pytest.approx(first, rel=1e-9), name  # convolutions round otherwise


def test_annealing_repairs_what_plain_draws_can_not():
    case, gamma = solved(), 0.1
    truth = gaussian_integral(case, gamma)
    plain = measure("local_entropy", case, gamma=gamma, draws=40, steps=1)
    annealed = measure("local_entropy", case, gamma=gamma, draws=40, steps=300)
    assert plain.stderr is None  # it says that it failed
    assert plain.details["effective"] < 3
    assert plain.value > truth + 1  # too large, as promised
    assert annealed.stderr is not None
    assert abs(annealed.value - truth) <= 4 * annealed.stderr
    assert 0.1 < annealed.details["accepted"] < 0.9


def test_error_of_local_entropy_covers_the_truth():
    case = nets.quadratic()
    truth = gaussian_integral(case, 3.0)
    found = [
        measure("local_entropy", case, gamma=3.0, draws=20, steps=4, seed=seed)
        for seed in range(200)
    ]
    # skewed weights cost a little of the 95%; 200 runs know it to 1.5%
    assert 0.88 <= coverage(truth, found) <= 0.99


def test_local_entropy_without_a_finite_loss():
    model = nn.Linear(1, 1, bias=False).double()
    batch = torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(1.0)

    def cliff(model: nn.Module, batch: Tensor) -> Tensor:
        return torch.where(model.weight == 1, 0.0, math.inf).sum()

    with pytest.raises(WorkError, match="larger gamma"):
        METRICS["local_entropy"](Problem(model, cliff, [batch]))


# --- the symmetric pair ---


def diagonal() -> nets.Case:
    """Orthogonal inputs: the Hessian of mse is diagonal."""
    with nets.seeded():
        model = nn.Linear(4, 1, bias=False).double()
    inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    return nets.Case(model, nets.mse, inputs, nets.randn(4, 1))


def test_binary_noise_sees_a_diagonal_curvature_without_error():
    case, c = diagonal(), 0.2
    size = float(reference.flat_weights(case.model).square().mean())  # one filter's mean square
    truth = c**2 / 2 * size * float(reference.hessian(case).trace())
    found = measure("symmetric_gap", case, c=c, draws=5)
    assert found.value == pytest.approx(truth, rel=1e-11)
    assert found.stderr == pytest.approx(0, abs=1e-12 * truth)
    assert measure("symmetric_gap", case, c=c, draws=5, law="gaussian").stderr > 0.1 * truth


def test_asymmetry_of_a_quadratic_is_its_gradient():
    case, c = nets.quadratic(), 0.3
    norm = float(reference.gradient(case).norm())
    found = measure("asymmetry", case, c=c, law="gaussian", scale="none", draws=400)
    # ⟨g, n⟩ is normal with the standard deviation c‖g‖; its mean size is √(2/π) of that
    assert abs(found.value - c * norm * (2 / math.pi) ** 0.5) <= 4 * found.stderr
    assert found.stderr < 0.05 * found.value
    assert found.details["rms"] == pytest.approx(c * norm, rel=0.15)  # four errors: 4/√800


def test_an_asymmetric_valley():
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    batch, c = torch.ones(1, 1, dtype=torch.float64), 0.1

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return (model.weight**2 + model.weight**3).sum()

    options = {"c": c, "scale": "none"}  # ±0.1 on the one weight
    odd = METRICS["asymmetry"](Problem(model, loss, [batch]), **options)
    even = METRICS["symmetric_gap"](Problem(model, loss, [batch]), **options)
    assert odd.value == pytest.approx(c**3, rel=1e-12)
    assert even.value == pytest.approx(c**2, rel=1e-12)
    assert odd.details["symmetric_gap"] == pytest.approx(even.value, rel=1e-12)


def test_excluded_parameters_do_not_move():
    """Biases of zero have no relative noise: sparing them then changes nothing."""
    case = nets.mlp()
    assert measure("symmetric_gap", case, exclude="none") != measure("symmetric_gap", case)
    for layer in (0, 3, 5):
        torch.nn.init.zeros_(case.model[layer].bias)
    still, moved = (measure("symmetric_gap", case, exclude=exclude) for exclude in ("1d", "none"))
    assert still.value == moved.value


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm"])
def test_gap_is_expected_sharpness_at_the_same_noise(net):
    context = MetricContext(Problem(*nets.CASES[net]().problem), 4)
    gap = METRICS["symmetric_gap"].on(context, exclude="none", draws=6)
    options = {"law": "binary", "scale": "filter", "sigma": 0.1, "draws": 6}
    again = METRICS["expected"].on(context, **options)
    assert gap.value == again.value
    assert again.cost.forwards == 0  # one set of perturbations for both


def test_metrics_of_the_same_noise_share_their_passes():
    context = MetricContext(Problem(*nets.mlp().problem))
    METRICS["symmetric_gap"].on(context)
    assert context.cost.forwards == 101
    METRICS["asymmetry"].on(context)
    METRICS["expected"].on(context, sigma=0.2)
    METRICS["noise_robustness"].on(context)
    assert context.cost.forwards == 201


# --- pac_bayes_sigma ---


def test_pac_bayes_sigma_of_a_quadratic():
    """The rise is ½σ² zᵀHz, so σ² = 2 target/zᵀHz and 1/σ² is Tr H/(2 target) on average."""
    case, target = nets.quadratic(), 0.2
    options = {"target": target, "scale": "none", "tolerance": 1e-4, "of": "loss"}
    found = measure("pac_bayes_sigma", case, draws=400, **options)
    truth = float(reference.hessian(case).trace()) / (2 * target)
    assert abs(found.value - truth) <= 4 * found.stderr
    assert found.stderr < 0.1 * truth
    draws = reference.noise_draws(case, Noise(law="gaussian", scale="none"), 1, 30, seed=6)
    each = half_curvature(case, draws) / target
    found = measure("pac_bayes_sigma", case, draws=30, seed=6, **options)
    # half the bracket of sigma, squared
    assert found.value == pytest.approx(each.mean(), rel=1.01e-4)
    # the slope is a difference over a factor of √2: (√2 − 1/√2)/ln √2 = 2.04 in place of 2
    assert found.stderr == pytest.approx(each.std(ddof=1) / 30**0.5, rel=0.03)
    assert found.value == pytest.approx(1 / found.settings["sigma"] ** 2, rel=1e-12)


@pytest.mark.parametrize("scale", ["weight", "none"])
def test_pac_bayes_sigma_is_the_last_noise_that_the_accuracy_bears(scale):
    case = nets.trained()
    found = measure("pac_bayes_sigma", case, scale=scale, draws=6, seed=2, tolerance=0.002)
    assert found.settings["of"] == "accuracy"
    unit = reference.noise_draws(case, Noise(law="gaussian", scale=scale), 1, 6, seed=2)

    def drop(sigma: float) -> float:
        return reference.noise_robustness(case, [sigma * z for z in unit])

    sigma = found.settings["sigma"]  # the middle of a bracket of 0.2%
    assert drop(sigma / 1.001) <= 0.1 + 1e-12 < drop(sigma * 1.001)
    assert found.stderr > 0


def test_pac_bayes_sigma_of_what_can_not_fall():
    untrained = nets.mlp()
    with pytest.raises(InputError, match=r"most common class's share .*: use .* of=loss"):
        measure("pac_bayes_sigma", untrained)
    assert measure("pac_bayes_sigma", untrained, of="loss").settings["of"] == "loss"
    with pytest.raises(InputError, match=r"not class labels.*: use of=loss"):
        measure("pac_bayes_sigma", nets.regression())
    with pytest.raises(InputError, match=r"of the loss does not cross 1000000000"):
        measure("pac_bayes_sigma", nets.regression(), of="loss", target=1e9)


def test_accuracy_needs_room_above_the_commonest_class():
    """Ten examples of two classes, 5:5 and of accuracy 0.8: enough for a drop of 0.15, not 0.16."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(5, 1)
    case = nets.Case(model, nets.cross_entropy, x, torch.tensor([0, 1] * 4 + [1, 0]))
    assert measure("pac_bayes_sigma", case, target=0.15).settings["of"] == "accuracy"
    with pytest.raises(InputError, match=r"accuracy 0.8 .* share 0.5 .*use .*of=loss"):
        measure("pac_bayes_sigma", case, target=0.16)


def test_noise_beyond_floating_point_is_more_than_accuracy_bears():
    case = nets.quadratic()
    single = nets.Case(
        case.model.float(), case.loss, 1e18 * case.inputs.float(), case.targets.float()
    )
    with torch.no_grad():
        single.model.weight.mul_(1e-18)
    found = measure("pac_bayes_sigma", single, scale="none", target=1e37, of="loss")
    assert math.isfinite(found.value)
    with pytest.raises(WorkError, match="not finite"):  # the next sigma up overflows
        measure("lpf", single, sigma=4 * found.settings["sigma"])


# --- settings, differences ---


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lpf", {"sigma": -1.0}),
        ("lpf", {"sigma": math.inf}),
        ("lpf", {"draws": 1}),
        ("lpf", {"value_of": "gap"}),
        ("local_entropy", {"gamma": 0.0}),
        ("local_entropy", {"gamma": math.nan}),
        ("local_entropy", {"draws": 1}),
        ("local_entropy", {"steps": 0}),
        ("symmetric_gap", {"c": -0.1}),
        ("symmetric_gap", {"law": "cauchy"}),
        ("symmetric_gap", {"exclude": "2d"}),
        ("asymmetry", {"c": math.nan}),
        ("asymmetry", {"draws": 1}),
        ("asymmetry", {"exclude": "2d"}),
        ("pac_bayes_sigma", {"target": 0.0}),
        ("pac_bayes_sigma", {"scale": "tensor"}),
        ("pac_bayes_sigma", {"of": "f1"}),
        ("pac_bayes_sigma", {"draws": 1}),
        ("pac_bayes_sigma", {"tolerance": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name, options):
    with pytest.raises(InputError) as raised:
        measure(name, nets.mlp(), **options)
    assert not str(raised.value).startswith(name)  # who reports it says which metric it was


@pytest.mark.parametrize("name", ["lpf", "local_entropy", "symmetric_gap", "pac_bayes_sigma"])
def test_samples_have_the_value_as_mean_and_its_error(name):
    found = measure(name, nets.mlp(), **reference.METRICS[name].needs)
    samples = np.array(found.samples)
    assert samples.mean() == pytest.approx(found.value, rel=1e-9)
    assert samples.std(ddof=1) / len(samples) ** 0.5 == pytest.approx(found.stderr, rel=1e-9)


@pytest.mark.parametrize("name", ["lpf", "local_entropy", "symmetric_gap", "pac_bayes_sigma"])
def test_pairs_sharpen_the_difference_of_like_models(name):
    first, second = nets.trained(), nets.trained()
    with torch.no_grad():
        for weight in second.model.parameters():
            weight.mul_(1.02)
    one, other = measure(name, first), measure(name, second)
    _, error = difference(one, other)
    assert error < 0.5 * math.hypot(one.stderr, other.stderr)


@pytest.mark.parametrize(
    "name", ["expected", "symmetric_gap", "asymmetry", "noise_robustness", "pac_bayes_sigma"]
)
def test_element_is_another_name_of_weight(name):
    needs = reference.METRICS[name].needs
    one, other = (
        measure(name, nets.mlp(), scale=scale, **needs) for scale in ("element", "weight")
    )
    assert one == other
    assert one.settings["scale"] == "weight"


def test_targets_of_a_strangers_loss_need_not_be_a_tensor():
    """Losses at perturbed weights come with an accuracy only where there are labels."""
    case = nets.mlp()

    def loss(outputs: Tensor, targets: tuple) -> Tensor:
        return nets.cross_entropy(outputs, targets[0])

    batches = [(x, (y, None)) for x, y in case.batches()]
    found = METRICS["symmetric_gap"](Problem(case.model, loss, batches))
    assert found.value == measure("symmetric_gap", case).value
    robust = METRICS["noise_robustness"](Problem(case.model, loss, batches))
    assert robust.settings["of"] == "loss"


def test_a_loss_that_is_not_finite():
    case = nets.mlp()
    with pytest.raises(WorkError, match="not finite under weight noise of scale 1e\\+200"):
        measure("expected", nets.regression(), sigma=1e200)
    assert math.isfinite(measure("expected", case, sigma=1.0).value)
