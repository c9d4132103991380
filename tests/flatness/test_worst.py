"""Worst cases within a ball or a box, against maxima that are known by other means."""

import dataclasses
import itertools

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness import METRICS, Measurement, curve
from ssgd_analysis.flatness.ball import checkpoints
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.metrics import keskar
from ssgd_analysis.problem import Problem

BALLS = ("worst_case", "m_sharpness", "adaptive_worst")
SEARCHES = (*BALLS, "keskar")
CASES = {"mlp": nets.mlp, "conv_batchnorm": nets.conv_batchnorm, "relu": nets.relu}


def measure(name: str, case: nets.Case, **options) -> Measurement:
    return METRICS[name](Problem(*case.problem), **options)


def scale_of(name: str, case: nets.Case) -> Tensor:
    """What a coordinate of the ball is multiplied with."""
    w = reference.flat_weights(case.model)
    return w.abs() if name == "adaptive_worst" else torch.ones_like(w)


# --- the ascent itself ---


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]  # its figure's fractions
    for steps in range(1, 300):
        exact = {step for step in reference.reviews(steps) if 0 < step <= steps}
        assert set(checkpoints(steps)) | {steps} == exact | {steps}


@pytest.mark.parametrize("net", CASES)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(("name", "rho"), [("worst_case", 0.3), ("adaptive_worst", 0.8)])
def test_ascent_equals_its_literal_reading(name, rho, norm, net):
    case, rho = CASES[net](), rho / 10 if norm == "linf" else rho
    truth = reference.apgd(case, scale_of(name, case), rho, norm, 23)
    found = measure(name, case, rho=rho, norm=norm, steps=23, starts=1)
    assert found.value == pytest.approx(truth, rel=1e-8)
    assert found.settings["norm"] == norm


def test_ascent_with_setbacks():
    # long steps on a ReLU net: without halving and going back the value is another
    case = nets.relu()
    truth = reference.apgd(case, scale_of("adaptive_worst", case), 1.5, "l2", 40)
    found = measure("adaptive_worst", case, rho=1.5, steps=40, starts=1).value
    assert found == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("net", CASES)
@pytest.mark.parametrize("rho", [0.01, 0.2])
def test_the_first_step_is_that_of_sam(net, rho):
    case = CASES[net]()
    one_step = measure("sam", case, rho=rho).value
    first = measure("worst_case", case, rho=rho, steps=1, starts=1).value
    assert first == pytest.approx(one_step, rel=1e-9)
    assert measure("worst_case", case, rho=rho).value >= one_step


@pytest.mark.parametrize("net", CASES)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", BALLS)
def test_more_steps_find_no_less(name, norm, net):
    case, rho = CASES[net](), 0.2 if norm == "l2" else 0.02
    found = [
        measure(name, case, rho=rho, norm=norm, steps=steps, starts=1).value
        for steps in (1, 2, 5, 20, 80)
    ]
    # the schedule stretches with the number of steps: more are another path, not a longer one,
    # and in a cube it may end at a local maximum 0.1% lower; the first step is common to all
    assert all(b >= a * (1 - 1e-3) for a, b in itertools.pairwise(found))
    assert min(found) == found[0] > 0
    assert found[-1] > found[0]


@pytest.mark.parametrize("net", CASES)
def test_more_iterations_find_no_less(net):
    case = CASES[net]()
    found = [measure("keskar", case, epsilon=0.02, iterations=n).value for n in (1, 2, 5, 20)]
    assert found == sorted(found)
    assert found[-1] > found[0] > 0


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", ["worst_case", "adaptive_worst"])
def test_beats_random_points_of_its_ball(name, norm):
    case, rho = nets.mlp(), 0.5 if norm == "l2" else 0.05
    w, scale = reference.flat_weights(case.model), scale_of(name, case)
    base, found = reference.loss_at(case, w), measure(name, case, rho=rho, norm=norm).value
    for seed in range(50):
        u = nets.randn(len(w), seed=seed)
        u = rho * (u.sign() if norm == "linf" else u / u.norm())
        assert reference.loss_at(case, w + scale * u) - base < found


def test_keskar_beats_random_corners_of_its_box():
    case, epsilon = nets.mlp(), 0.01
    w = reference.flat_weights(case.model)
    base, half = reference.loss_at(case, w), epsilon * (w.abs() + 1)
    found = measure("keskar", case, epsilon=epsilon).value
    for seed in range(50):
        there = reference.loss_at(case, w + half * nets.randn(len(w), seed=seed).sign())
        assert 100 * (there - base) / (1 + base) < found


# --- closed forms: quadratics ---


def quadratic(name: str, case: nets.Case) -> tuple[Tensor, Tensor]:
    """Slope and curvature of the loss in the coordinates of the ball."""
    scale = scale_of(name, case)
    return scale * reference.gradient(case), scale[:, None] * reference.hessian(case) * scale


def box_maximum(b: Tensor, A: Tensor, half: Tensor) -> float:
    """max of b·z + ½ zᵀAz over |z| ≤ half, A positive semi-definite: the best of all corners."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(b))), dtype=b.dtype)
    z = signs * half
    return float((z @ b + (z @ A * z).sum(dim=1) / 2).max())


@pytest.mark.parametrize("rho", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", ["worst_case", "adaptive_worst"])
def test_maximum_of_a_quadratic_on_a_sphere(name, rho):
    case = nets.quadratic()
    truth = reference.sphere_maximum(*quadratic(name, case), rho)
    found = measure(name, case, rho=rho).value
    assert found <= truth * (1 + 1e-9)  # a lower bound
    assert found == pytest.approx(truth, rel=0.01)  # by the 20 steps of the default
    longer = measure(name, case, rho=rho, steps=300).value
    assert longer == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize(("rho", "local"), [(0.01, 1 - 1e-9), (0.1, 0.99), (1.0, 0.9)])
@pytest.mark.parametrize("name", ["worst_case", "adaptive_worst"])
def test_maximum_of_a_quadratic_in_a_cube(name, rho, local):
    case = nets.quadratic()  # 8 weights, 256 corners
    b, A = quadratic(name, case)
    truth = box_maximum(b, A, torch.full_like(b, rho))
    found = measure(name, case, rho=rho, norm="linf").value
    # once the curvature matters a cube has several local maxima, and no ascent knows the highest
    assert truth * local <= found <= truth * (1 + 1e-9)


@pytest.mark.parametrize(("epsilon", "local"), [(1e-3, 1 - 1e-9), (0.01, 1 - 1e-9), (0.1, 0.9)])
@pytest.mark.parametrize("subspace", [0, 3, 5])
def test_keskar_of_a_quadratic(epsilon, local, subspace):
    case = nets.quadratic()
    w = reference.flat_weights(case.model)
    b, A = reference.gradient(case), reference.hessian(case)
    columns = torch.eye(len(w), dtype=w.dtype)
    if subspace:
        stream = MetricContext(Problem(*case.problem), 5).generator("keskar subspace")
        columns = torch.stack(
            [torch.randn(len(w), generator=stream, dtype=w.dtype) for _ in range(subspace)], dim=1
        )
    half = epsilon * ((torch.linalg.pinv(columns) @ w).abs() + 1)
    top = box_maximum(columns.T @ b, columns.T @ A @ columns, half)
    truth = 100 * top / (1 + reference.loss_at(case, w))
    found = measure("keskar", case, epsilon=epsilon, subspace=subspace, seed=5).value
    assert truth * local <= found <= truth * (1 + 1e-9)  # wide boxes have local maxima, too


def test_m_sharpness_of_quadratics():
    # every group has a quadratic of its own, the last one is short: 3, 3, 3, 2 examples
    case, total = nets.quadratic(), 0.0
    for x, y in zip(case.inputs.split(3), case.targets.split(3), strict=True):
        group = nets.Case(case.model, case.loss, x, y)
        total += len(x) / nets.N * reference.sphere_maximum(*quadratic("m_sharpness", group), 0.5)
    found = measure("m_sharpness", case, rho=0.5, m=3, steps=300)
    assert found.value == pytest.approx(total, rel=1e-5)


class Sizes(TorchDispatchMode):
    """Bytes of every tensor that is made, by its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, int] = {}
        self.kept: list[Tensor] = []  # so that no memory is used twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.found[storage.data_ptr()] = storage.nbytes()
                self.kept.append(tensor)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_subspace_takes_the_memory_of_its_columns_once(dtype, monkeypatch):
    monkeypatch.setattr(keskar, "CHUNK", 100)
    with nets.seeded():
        model = torch.nn.Linear(1000, 3).to(dtype)
    case = nets.Case(model, nets.cross_entropy, nets.randn(8, 1000).to(dtype), nets.labels(8))
    with Sizes() as sizes:
        measure("keskar", case, subspace=50)
    store = 50 * 3003 * torch.finfo(dtype).bits // 8
    largest = sorted(sizes.found.values())[-2:]
    assert largest[1] == store
    assert largest[0] <= store / 8  # a weight vector or chunk in float64 and the inputs


def test_a_subspace_is_the_same_in_float32():
    case = nets.mlp()
    double = measure("keskar", case, subspace=20, epsilon=0.02).value
    single = nets.Case(case.model.float(), case.loss, case.inputs.float(), case.targets)
    # differences of losses of order one, 1e-7, over a rise of about 0.1
    assert measure("keskar", single, subspace=20, epsilon=0.02).value == pytest.approx(
        double, rel=1e-4
    )


# --- groups ---


def test_smaller_groups_find_more():
    case = nets.mlp()
    found = [measure("m_sharpness", case, m=m, steps=50).value for m in (1, 4, nets.N)]
    assert found == sorted(found, reverse=True)
    whole = measure("worst_case", case, steps=50)
    assert found[-1] == whole.value
    assert measure("m_sharpness", case, m=10**6, steps=50).stderr == whole.stderr


@pytest.mark.parametrize("name", ["m_sharpness", "adaptive_worst"])
def test_error_over_groups(name):
    case = nets.mlp()
    found = measure(name, case, m=3)
    shares, values = np.array([3, 3, 3, 2]) / nets.N, np.array(found.samples)
    assert found.weights == pytest.approx(shares)
    assert found.value == pytest.approx(shares @ values)
    spread = (shares * (values - shares @ values) ** 2).sum() / 3
    assert found.stderr == pytest.approx(spread**0.5, rel=1e-9)


class Centred(torch.nn.Module):
    """Examples of a batch see one another."""

    def __init__(self) -> None:
        super().__init__()
        self.read = torch.nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        out = self.read(x)
        return out * out.sum(dim=0)


def test_batches_that_cant_be_cut():
    with nets.seeded():
        case = nets.Case(Centred(), nets.cross_entropy, nets.randn(nets.N, 4), nets.labels())
    with pytest.raises(InputError, match="give batches of m = 3 examples"):
        measure("m_sharpness", case, m=3)
    assert measure("m_sharpness", case, m=4).value > 0  # its own batches
    assert measure("worst_case", case).value > 0


# --- errors told ---


@pytest.mark.parametrize("name", ["worst_case", "adaptive_worst"])
def test_samples_are_rises_at_one_point_of_the_ball(name):
    case = nets.mlp()
    found = measure(name, case)
    assert found.weights == pytest.approx(np.array([4, 4, 3]) / nets.N)
    assert found.value == pytest.approx(np.dot(found.weights, found.samples))
    assert found.stderr > 0


def test_error_of_keskar_is_that_of_the_ratio():
    """Against a jackknife in the limit: weights of the batches moved a little, the point kept."""
    case, moved = nets.mlp(), []
    found = measure("keskar", case, epsilon=0.02)
    problem = Problem(*case.problem)
    original = Problem.losses_and_gradient

    def spying(self: Problem) -> tuple[list[float], list[Tensor]]:
        losses, gradient = original(self)
        moved.append(losses)
        return losses, gradient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Problem, "losses_and_gradient", spying)
        measure("keskar", case, epsilon=0.02)
    shares, before = np.array(problem.shares), np.array(problem.batch_losses())
    after = np.array(max(moved, key=problem.mean))

    def ratio(p: np.ndarray) -> float:
        return 100 * float(p @ (after - before) / (1 + p @ before))

    assert found.value == pytest.approx(ratio(shares), rel=1e-12)
    step = 1e-6
    influence = np.array([
        (ratio((1 - step) * shares + step * one) - ratio((1 + step) * shares - step * one))
        / (2 * step)
        for one in np.eye(3)
    ])  # fmt: skip
    truth = (shares @ influence**2 / 2) ** 0.5
    assert found.stderr == pytest.approx(truth, rel=1e-6)  # differences of step 1e-6


# --- curves ---


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", BALLS)
def test_a_metric_is_a_point_of_its_curve(name, norm):
    case = nets.mlp()
    points = curve(Problem(*case.problem), name, norm=norm)
    entry = METRICS[name]
    assert [rho for rho, _ in points] == list(entry.radii if norm == "l2" else entry.linf_radii)
    values = [found.value for _, found in points]
    assert values == sorted(values)
    assert values[0] > 0
    rho, found = points[2]
    alone = dataclasses.replace(measure(name, case, norm=norm, rho=rho), cost=found.cost)
    assert alone == found


def test_keskar_is_a_point_of_its_curve():
    case = nets.mlp()
    points = curve(Problem(*case.problem), "keskar")
    values = [found.value for _, found in points]
    assert values == sorted(values)
    assert measure("keskar", case, epsilon=points[3][0]).value == values[3]


# --- cost ---


@pytest.mark.parametrize("name", ["worst_case", "adaptive_worst"])
def test_steps_cost_a_gradient_each(name):
    case = nets.mlp()
    cost = measure(name, case, steps=7, starts=1).cost
    assert (cost.forwards, cost.gradients, cost.products) == (2, 7, 0)  # clean and last losses
    context = MetricContext(Problem(*case.problem))
    METRICS["sam"].on(context)  # pays for the clean losses and gradient
    assert METRICS[name].on(context, steps=7, starts=1).cost.gradients == 6


@pytest.mark.parametrize(("m", "check"), [(3, 1), (4, 0)])
def test_groups_cost_what_the_whole_costs(m, check):
    cost = measure("m_sharpness", nets.mlp(), m=m, steps=7, starts=1).cost
    assert cost.forwards == pytest.approx(2 + check)  # whether batches may be cut: their halves
    assert cost.gradients == pytest.approx(7 + 2 * check)  # and both, differentiated


@pytest.mark.parametrize("name", SEARCHES)
def test_cost_is_what_was_spent(name):
    case = nets.mlp()
    seen: list[int] = []

    def counting(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return case.loss(outputs, targets)

    cost = METRICS[name](Problem(case.model, counting, case.batches())).cost
    passes = 1 + cost.forwards + cost.gradients  # the first one reads what batches weigh
    assert sum(seen) == pytest.approx(nets.N * passes)


@pytest.mark.parametrize("name", SEARCHES)
def test_settings_are_what_fixes_the_number(name):
    found = measure(name, minimum(), seed=3)
    assert found.settings["seed"] == 3
    if name in ("worst_case", "m_sharpness"):  # a random direction where there is no slope
        assert found.value != measure(name, minimum(), seed=4).value
    settings = set(found.settings) - {"seed", "error"}
    assert settings == set(METRICS[name].defaults)


# --- minima, and worse ---


def minimum(level: float = 0.0) -> nets.Case:
    """A linear model with zero weights that fits exactly: gradient zero, curvature not."""
    case = nets.quadratic()
    zero = torch.zeros_like(case.targets)
    with torch.no_grad():
        case.model.weight.zero_()
    return nets.Case(case.model, lambda a, b: nets.mse(a, b) + level, case.inputs, zero)


@pytest.mark.parametrize("name", ["worst_case", "m_sharpness", "keskar"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_exact_minimum_is_left(name, norm):
    case = minimum()
    b, A = quadratic("worst_case", case)
    assert not b.any()
    if name == "keskar":
        truth = 100 * box_maximum(b, A, torch.full_like(b, 1e-3))
        found = measure(name, case).value
    elif norm == "linf":
        truth = box_maximum(b, A, torch.full_like(b, 0.1))
        found = measure(name, case, rho=0.1, norm="linf").value
    else:
        truth = 0.1**2 / 2 * float(torch.linalg.eigvalsh(A)[-1])
        found = measure(name, case, rho=0.1, steps=100).value
    # from a random point a box or cube gives a local maximum
    assert 0.7 * truth < found <= truth * (1 + 1e-9)


@pytest.mark.parametrize("name", SEARCHES)
def test_losses_that_overflow_are_told(name):
    case = nets.mlp()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (1e4 * outputs).exp().mean()

    with torch.no_grad():
        case.model[5].weight.zero_()
        case.model[5].bias.fill_(0.05)
    strength = "epsilon" if name == "keskar" else "rho"
    before = nets.state(case.model)
    with pytest.raises(WorkError, match=r"finite|is inf|is nan"):
        METRICS[name](Problem(case.model, loss, case.batches()), **{strength: 10.0})
    assert nets.state(case.model) == before


def test_keskar_of_a_loss_below_minus_one():
    with pytest.raises(InputError, match="use worst_case"):
        measure("keskar", minimum(-1.0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"rho": value}) for name in BALLS for value in (-0.1, np.nan, np.inf)),
        *((name, {"steps": 0}) for name in BALLS),
        *((name, {"norm": "l1"}) for name in BALLS),
        ("m_sharpness", {"m": 0}),
        ("adaptive_worst", {"m": -1}),
        *(("keskar", {"epsilon": value}) for value in (-0.1, np.nan, np.inf)),
        ("keskar", {"iterations": 0}),
        ("keskar", {"subspace": -1}),
        ("keskar", {"subspace": 10**6}),
    ],
)
def test_settings_out_of_range_are_refused(name, options):
    with pytest.raises(InputError) as raised:
        measure(name, nets.mlp(), **options)
    assert not str(raised.value).startswith(name)  # who reports it says which metric it was


@pytest.mark.parametrize("name", SEARCHES)
def test_no_radius_no_rise(name):
    found = measure(name, nets.attention(), **{METRICS[name].radius: 0.0})
    assert (found.value, found.stderr) == (0.0, 0.0)


@pytest.mark.parametrize("factor", [1e-6, 1e3])
@pytest.mark.parametrize("name", SEARCHES)
def test_the_search_knows_no_units(name, factor):
    """The worst point of a loss times a factor is the same: a good fit does not end it early."""
    case = nets.mlp()
    scaled = dataclasses.replace(case, loss=lambda out, y: factor * case.loss(out, y))
    base = reference.loss_at(case, reference.flat_weights(case.model))
    first, second = measure(name, case).value, measure(name, scaled).value
    if name == "keskar":
        first, second = first * (1 + base), second * (1 + factor * base)
    assert second == pytest.approx(factor * first, rel=1e-6)  # differences of losses, 1e-16 / 1e-3


# --- invariances that are this file's own ---


def permuted(case: nets.Case) -> nets.Case:
    """Hidden units of the ReLU net in another order: the same function."""
    model = nets.evaluated(case.model)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[order])
        model[0].bias.copy_(model[0].bias[order])
        model[2].weight.copy_(model[2].weight[:, order])
    return dataclasses.replace(case, model=model)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_order_of_neurons_does_not_matter(name, norm):
    case, options = nets.relu(), {} if name == "keskar" else {"norm": norm}
    first, second = (measure(name, one, **options).value for one in (case, permuted(case)))
    assert second == pytest.approx(first, rel=1e-7)


@pytest.mark.parametrize("factor", [3.0, 0.2])
def test_relative_cubes_scale_with_the_layers(factor):
    case = nets.relu()
    scaled = dataclasses.replace(case, model=nets.evaluated(case.model))
    with torch.no_grad():
        scaled.model[0].weight.mul_(factor)
        scaled.model[0].bias.mul_(factor)
        scaled.model[2].weight.div_(factor)
    options = {"norm": "linf", "rho": 0.05}
    first, second = (measure("adaptive_worst", one, **options).value for one in (case, scaled))
    assert second == pytest.approx(first, rel=1e-8)
    for name in ("worst_case", "m_sharpness", "keskar"):
        first, second = (measure(name, one).value for one in (case, scaled))
        assert abs(second - first) > 0.1 * first, name
