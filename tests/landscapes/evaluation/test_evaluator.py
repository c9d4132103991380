"""Points of a landscape, held against plain forward passes and closed forms."""

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.evaluation import EvaluationPlan, Evaluator, measured_plan
from ssgd_analysis.landscapes.evaluation import plan as planning
from ssgd_analysis.models import load_model
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights.batchnorm import recalibrate_batchnorm

PLACES = np.array([[0.0, 0.0], [0.3, -0.2], [0.3, 0.7], [-1.0, 1.0], [2.0, 2.0]])


def directions(problem: Problem, count: int = 2, size: float = 0.3) -> list[list[Tensor]]:
    return [
        [
            size * nets.randn(*p.shape, seed=7 * number + index).to(p.dtype)
            for index, p in enumerate(problem.parameters.values())
        ]
        for number in range(count)
    ]


def by_hand(problem: Problem, along: list[list[Tensor]], places: np.ndarray) -> tuple:
    """Set the weights, evaluate the problem's own batches, put the weights back."""
    parameters = list(problem.parameters.values())
    clean = [p.detach().clone() for p in parameters]
    losses, accuracies = [], []
    with torch.no_grad():
        for place in places:
            for index, (parameter, weight) in enumerate(zip(parameters, clean, strict=True)):
                moved = weight + sum(a * d[index] for a, d in zip(place, along, strict=True))
                parameter.copy_(moved)
            loss, accuracy = problem.evaluate()
            losses.append(loss)
            accuracies.append(np.nan if accuracy is None else accuracy)
        for parameter, weight in zip(parameters, clean, strict=True):
            parameter.copy_(weight)
    return np.array(losses), np.array(accuracies)


def images(name: str, count: int = 37, channels: int = 1, size: int = 8) -> Problem:
    """A registered network in float32 with statistics and a loss that are not the initial ones."""
    with nets.seeded():
        model = load_model(name, (channels, size, size), 10)
        inputs = torch.randn(count, channels, size, size)
        model(2 * inputs + 1)
    targets = nets.labels(count, 10)
    batches = list(zip(inputs.split(16), targets.split(16), strict=True))
    return Problem(model, nets.cross_entropy, batches)


@pytest.mark.parametrize("name", sorted(nets.CASES))
@pytest.mark.parametrize("chunk", [None, 3])
def test_every_net_is_traced_and_equals_plain_passes(name, chunk):
    case = nets.with_state(nets.CASES[name]())
    problem = Problem(*case.problem)
    along = directions(problem)
    before = nets.state(case.model)
    plan = None if chunk is None else EvaluationPlan("traced", chunk)
    evaluator = Evaluator(problem, along, plan=plan)
    assert evaluator.plan.strategy == "traced"
    loss, accuracy = evaluator.evaluate(PLACES)
    assert nets.state(case.model) == before
    truth = by_hand(problem, along, PLACES)
    # float64: sums in another order, a few hundred roundings of 1e-16
    np.testing.assert_allclose(loss, truth[0], rtol=1e-12)
    np.testing.assert_array_equal(accuracy, truth[1])


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet20"])
def test_the_registered_nets_take_the_fast_way_in_float32(name):
    problem = images(name)
    along = directions(problem, size=0.05)
    evaluator = Evaluator(problem, along)
    assert evaluator.plan.strategy == "traced"
    assert evaluator.plan.why == ""
    loss, accuracy = evaluator.evaluate(PLACES)
    truth = by_hand(problem, along, PLACES)
    # the contract: normalisation folded into weights and sums in another order round otherwise
    np.testing.assert_allclose(loss, truth[0], rtol=1e-5)
    assert np.ptp(loss) > 0.1
    # a near tie may fall either way: one label of 37
    np.testing.assert_allclose(accuracy, truth[1], atol=1.01 / 37)


def test_points_repeat_bit_for_bit_in_any_order_and_by_the_plan():
    problem = images("cnn")
    along = directions(problem, size=0.05)
    evaluator = Evaluator(problem, along)
    first = evaluator.evaluate(PLACES)[0]
    assert nets.bits(torch.tensor(evaluator.evaluate(PLACES[::-1])[0][::-1].copy())) == nets.bits(
        torch.tensor(first)
    )
    plan = EvaluationPlan.from_json(evaluator.plan.to_json())
    again = Evaluator(problem, along, plan=plan)
    assert again.plan == evaluator.plan
    one_by_one = [again.evaluate(place[None])[0][0] for place in PLACES]
    np.testing.assert_array_equal(one_by_one, first)


def test_a_quadratic_equals_its_closed_form():
    case = nets.quadratic()
    problem = Problem(*case.problem)
    along = directions(problem)
    weight = case.model.weight.detach()
    expected = [
        float((case.inputs @ (weight + a * along[0][0] + b * along[1][0]).T - case.targets)
              .square().mean())
        for a, b in PLACES
    ]  # fmt: skip
    loss, accuracy = Evaluator(problem, along).evaluate(PLACES)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert np.isnan(accuracy).all()


class Branches(nn.Module):
    """Another function where a batch's mean is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.read(x)
        return out if out.mean() > 0 else out.square()


class Sees(nn.Module):
    """Examples see one another."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.read(x)
        return out - out.mean(0)


@pytest.mark.parametrize("net", [Branches, Sees])
def test_what_needs_its_own_batches_gets_them(net, monkeypatch):
    monkeypatch.setattr(planning, "FEWEST", 2)  # less than a batch
    monkeypatch.setattr(planning, "FILL", 0)
    with nets.seeded():
        model = net().double()
    case = nets.Case(model, nets.cross_entropy, nets.randn(nets.N, 4), nets.labels())
    problem = Problem(*case.problem)
    along = directions(problem, size=1.0)
    evaluator = Evaluator(problem, along)
    assert evaluator.plan.strategy == "plain"
    assert "traced: " in evaluator.plan.why
    np.testing.assert_allclose(
        evaluator.evaluate(PLACES)[0], by_hand(problem, along, PLACES)[0], rtol=1e-14
    )


def test_batchnorm_without_running_statistics_keeps_its_batches():
    with nets.seeded():
        norm = nn.BatchNorm2d(3, track_running_stats=False)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(27, 3))
    case = nets.Case(model.double(), nets.cross_entropy, nets.randn(11, 1, 5, 5), nets.labels())
    problem = Problem(*case.problem)
    along = directions(problem)
    found = Evaluator(problem, along).evaluate(PLACES)[0]
    np.testing.assert_allclose(found, by_hand(problem, along, PLACES)[0], rtol=1e-12)


class TwiceUsed(nn.Module):
    """A convolution used twice, and its normalisation once: it must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.scale = torch.full((1,), 0.5, dtype=torch.float64)  # no buffer: a constant
        self.read = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        once = self.conv(x)
        x = F.relu(self.norm(once)) + once * self.scale
        return self.read(F.relu(self.conv(x) + x, inplace=True).mean((2, 3)))


def test_modules_used_twice():
    with nets.seeded():
        model = TwiceUsed().double()
    model(3 * nets.randn(9, 2, 4, 4, seed=3) + 1)
    case = nets.with_state(
        nets.Case(model, nets.cross_entropy, nets.randn(11, 2, 4, 4), nets.labels())
    )
    before = nets.state(model)
    problem = Problem(*case.problem)
    along = directions(problem)
    evaluator = Evaluator(problem, along)
    assert evaluator.plan.strategy == "traced"
    np.testing.assert_allclose(
        evaluator.evaluate(PLACES)[0], by_hand(problem, along, PLACES)[0], rtol=1e-12
    )
    assert nets.state(model) == before


def test_points_without_a_finite_loss_are_told_as_plain_passes_tell_them():
    case = nets.regression()
    problem = Problem(*case.problem)
    along = directions(problem)
    places = np.array([[0.0, 0.0], [0.0, 1e200], [1e200, 0.0], [0.5, 0.5]])
    evaluator = Evaluator(problem, along, check=places)
    loss = evaluator.evaluate(places)[0]
    truth = by_hand(problem, along, places)[0]
    assert list(np.isfinite(truth)) == [True, False, False, True]
    np.testing.assert_array_equal(np.isfinite(loss), np.isfinite(truth))
    np.testing.assert_allclose(loss[[0, 3]], truth[[0, 3]], rtol=1e-12)


def test_what_else_moves_is_moved_and_comes_back():
    case = nets.with_state(nets.conv_batchnorm())
    case.model[3].bias.requires_grad_(False)
    case.model[3].bias.grad = None
    before = nets.state(case.model)
    problem = Problem(*case.problem)
    along = directions(problem, 1)
    statistics, frozen = case.model[1].running_var, case.model[3].bias
    start, other = statistics.clone(), frozen.detach().clone()

    def move(place):
        statistics.copy_(start * (1 + place[0]))
        frozen.copy_(other + place[0])

    places = np.array([[0.0], [0.5], [2.0]])
    evaluator = Evaluator(problem, along, move_rest=move)
    loss = evaluator.evaluate(places)[0]
    assert evaluator.plan.strategy == "traced"
    assert nets.state(case.model) == before
    for place, value in zip(places, loss, strict=True):
        with torch.no_grad():
            move(place)
        assert value == pytest.approx(by_hand(problem, along, place[None])[0][0], rel=1e-12)


def test_recalibration_equals_plain_passes():
    case = nets.with_state(nets.conv_batchnorm())
    before = nets.state(case.model)
    problem = Problem(*case.problem)
    along = directions(problem)
    evaluator = Evaluator(problem, along, recalibrate=case.batches())
    loss = evaluator.evaluate(PLACES)[0]
    assert nets.state(case.model) == before
    parameters = list(problem.parameters.values())
    clean = [p.detach().clone() for p in parameters]
    for place, value in zip(PLACES, loss, strict=True):
        with torch.no_grad():
            for p, w, *ds in zip(parameters, clean, *along, strict=True):
                p.copy_(w + sum(a * d for a, d in zip(place, ds, strict=True)))
        recalibrate_batchnorm(case.model, case.batches())
        assert value == pytest.approx(problem.mean_loss(), rel=1e-12)
    frozen = Evaluator(Problem(*nets.conv_batchnorm().problem), along).evaluate(PLACES)[0]
    assert np.abs(frozen - loss).max() > 1e-3


def test_an_interrupted_evaluation_gives_everything_back():
    case = nets.with_state(nets.mlp())
    before = nets.state(case.model)
    raising = nets.RaisesAfter(case.loss, 10**9)
    problem = Problem(case.model, raising, case.batches())
    along = directions(problem)
    evaluator = Evaluator(problem, along)
    truth = evaluator.evaluate(PLACES)[0]
    raising.left = 4
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(PLACES[::-1])
    assert nets.state(case.model) == before
    raising.left = 10**9
    np.testing.assert_array_equal(evaluator.evaluate(PLACES)[0], truth)


def test_bfloat16_is_near():
    problem = images("cnn")
    along = directions(problem, size=0.05)
    exact = Evaluator(problem, along).evaluate(PLACES)[0]
    evaluator = Evaluator(problem, along, precision="bf16")
    rough = evaluator.evaluate(PLACES)[0]
    # eight bits: 0.4% a rounding, a handful of layers
    np.testing.assert_allclose(rough, exact, rtol=0.05)
    assert np.abs(rough - exact).max() > 1e-6


def test_kept_values_that_would_take_too_much_are_computed_at_every_point(monkeypatch):
    from ssgd_analysis.landscapes.evaluation import strategies as ways

    problem = images("mlp")
    along = directions(problem, size=0.05)
    truth = by_hand(problem, along, PLACES)[0]
    monkeypatch.setattr(ways, "STORED", 100)
    loss = Evaluator(problem, along, plan=EvaluationPlan("traced", 8)).evaluate(PLACES)[0]
    np.testing.assert_allclose(loss, truth, rtol=1e-5)  # float32, as above


def test_chunks_follow_from_sizes(monkeypatch):
    """The largest activation of the cnn is 32 x 8 x 8 floats an example."""
    problem = images("cnn", count=200)
    monkeypatch.setattr(planning, "_cache", lambda: 64 * 32 * 8 * 8 * 4)
    assert planning.chunk_size(problem) == planning.FILL * 64


def test_a_measured_plan_is_one_of_the_ways_and_fits():
    problem = images("mlp")
    along = directions(problem, size=0.05)
    plan = measured_plan(problem, along)
    loss = Evaluator(problem, along, plan=plan).evaluate(PLACES)[0]
    np.testing.assert_allclose(loss, by_hand(problem, along, PLACES)[0], rtol=1e-5)


def test_bad_arguments_are_refused_in_words():
    problem = Problem(*nets.mlp().problem)
    along = directions(problem)
    with pytest.raises(InputError, match="each parameter's shape"):
        Evaluator(problem, [along[0][:-1]])
    with pytest.raises(InputError, match="precision 'fp8'"):
        Evaluator(problem, along, precision="fp8")
    with pytest.raises(InputError, match=r"'fastest:3' should be a strategy \(traced or plain\)"):
        EvaluationPlan("fastest", 3)
    with pytest.raises(InputError, match=r"\(points, 2\)"):
        Evaluator(problem, along).evaluate(np.zeros(3))
    branches = Problem(Branches().double(), nets.cross_entropy, nets.mlp().batches())
    with pytest.raises(InputError, match="does not fit this problem"):
        Evaluator(branches, directions(branches), plan=EvaluationPlan("traced", 4))
