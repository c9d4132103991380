"""Strangers' models: what looks at a whole batch, keeps tensors, or gets a plan that is not its."""

import copy

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.evaluation import EvaluationPlan, Evaluator, measured_plan
from ssgd_analysis.landscapes.evaluation import plan as planning
from ssgd_analysis.landscapes.evaluation.staged_graph import StagedGraph
from ssgd_analysis.problem import Problem

COUNT = 40
PLACES = np.stack([np.zeros(21), np.linspace(-2, 2, 21)], axis=1)
ORIGIN = np.zeros((1, 2))


def problem_of(model: nn.Module, loss=nets.cross_entropy, count: int = COUNT) -> Problem:
    inputs, targets = nets.randn(count, 4), nets.labels(count)
    return Problem(model, loss, list(zip(inputs.split(17), targets.split(17), strict=True)))


def directions(problem: Problem) -> list[list[Tensor]]:
    """Along the second one, weights grow in proportion."""
    weights = [p.detach().clone() for p in problem.parameters.values()]
    return [[nets.randn(*w.shape, seed=3) for w in weights], weights]


def truth(problem: Problem) -> np.ndarray:
    """The loss where all weights are times 1 + b, by the problem itself."""
    clean = [p.detach().clone() for p in problem.parameters.values()]
    losses = []
    with torch.no_grad():
        for _, b in PLACES:
            for parameter, weight in zip(problem.parameters.values(), clean, strict=True):
                parameter.copy_(weight + b * weight)
            losses.append(problem.mean_loss())
        for parameter, weight in zip(problem.parameters.values(), clean, strict=True):
            parameter.copy_(weight)
    return np.array(losses)


class Net(nn.Module):
    """A hidden layer, and something between it and the last."""

    def __init__(self) -> None:
        super().__init__()
        with nets.seeded():
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(torch.tanh(self.first(x))))

    def between(self, h: Tensor) -> Tensor:
        return h


class Branches(Net):
    """Another function where a whole batch is large, which it is not at the origin."""

    def between(self, h: Tensor) -> Tensor:
        return h * 0.2 if h.abs().mean() > 0.55 else h


class Switches(Net):
    """The same, in operations that can be traced."""

    def between(self, h: Tensor) -> Tensor:
        return torch.where(h.abs().mean() > 0.55, h * 0.2, h)


class Centres(Net):
    def between(self, h: Tensor) -> Tensor:
        return h - 0.3 * h.mean(0)


def of_model(model: nn.Module, batch: object) -> Tensor:
    inputs, targets = batch  # type: ignore[misc]
    return F.cross_entropy(model(inputs), targets)


@pytest.mark.parametrize("net", [Branches, Switches])
@pytest.mark.parametrize("loss", [of_model, nets.cross_entropy])
def test_a_batch_is_not_cut_where_its_examples_may_see_one_another(net, loss, monkeypatch):
    """Pieces cross the threshold elsewhere; at the origin, where ways are compared, none does."""
    monkeypatch.setattr(planning, "FEWEST", 3)
    monkeypatch.setattr(planning, "FILL", 0)
    problem = problem_of(net(), loss)
    plain = truth(problem_of(Net(), loss))
    differs = np.abs(truth(problem) - plain) > 1e-3
    assert 0 < differs.sum() < len(PLACES)
    evaluator = Evaluator(problem, directions(problem), check=ORIGIN)
    assert evaluator.plan.strategy == "plain"
    # the same passes, at weights that are the same but for a rounding
    np.testing.assert_allclose(evaluator.evaluate(PLACES)[0], truth(problem), rtol=1e-14)


class Masks(Net):
    """A tensor that takes its type from the inputs, and none of their values."""

    def between(self, h: Tensor) -> Tensor:
        return h @ h.new_full((6, 6), 0.2).triu(1)


def test_what_has_only_its_type_from_the_inputs_is_traced():
    problem = problem_of(Masks())
    evaluator = Evaluator(problem, directions(problem), plan=EvaluationPlan("traced", 7))
    np.testing.assert_allclose(evaluator.evaluate(PLACES)[0], truth(problem), rtol=1e-12)


@pytest.mark.parametrize("scale", [1, COUNT])
def test_a_loss_of_the_model_gets_its_own_batches_and_says_why(scale):
    problem = problem_of(Net(), lambda model, batch: scale * of_model(model, batch))
    evaluator = Evaluator(problem, directions(problem))
    assert evaluator.plan == EvaluationPlan("plain", COUNT, "traced: a loss of the model itself")
    loss, accuracy = evaluator.evaluate(PLACES)
    np.testing.assert_allclose(loss, truth(problem), rtol=1e-14)
    assert np.isnan(accuracy).all()
    with pytest.raises(InputError, match=r"'traced:7' does not fit .* a loss of the model itself"):
        Evaluator(problem, directions(problem), plan=EvaluationPlan("traced", 7))


class Keeps(Net):
    """Keeps what it saw as an attribute, in a dict, in a list, and by the length of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None
        self.found: dict[str, list[Tensor]] = {"h": []}
        self.seen: set[int] = set()
        self.ramps: dict[int, Tensor] = {}

    def between(self, h: Tensor) -> Tensor:
        self.kept = h
        self.found["h"] = [*self.found["h"][-1:], h]
        self.found.setdefault("first", []).append(h)
        if len(h) not in self.seen:
            self.seen.add(len(h))
            self.ramps[len(h)] = torch.linspace(0.5, 1, 6, dtype=h.dtype) * torch.ones_like(h)
        return h * self.ramps[len(h)]


class Raises(Keeps):
    def between(self, h: Tensor) -> Tensor:
        h = super().between(h)
        return h if h.sum() > -1e9 else h * 2  # a fake tensor has no value to look at


@pytest.mark.parametrize("net", [Keeps, Raises])
def test_tracing_leaves_nothing_in_models_that_keep_tensors(net):
    model = net()
    problem = problem_of(model)
    expected = truth(problem_of(net()))
    evaluator = Evaluator(problem, directions(problem))
    assert evaluator.plan.strategy == ("plain" if net is Raises else "traced")
    np.testing.assert_allclose(evaluator.evaluate(PLACES)[0], expected, rtol=1e-12)
    kept = [model.kept, *model.found["h"], *model.found["first"], *model.ramps.values()]
    assert all(np.isfinite(tensor.tolist()).all() for tensor in kept)  # values, not fake ones
    x = nets.randn(COUNT, 4)
    np.testing.assert_array_equal(copy.deepcopy(model)(x).detach(), net()(x).detach())
    again = measured_plan(problem, directions(problem))  # several traces after one another
    np.testing.assert_allclose(
        Evaluator(problem, directions(problem), plan=again).evaluate(PLACES)[0],
        expected,
        rtol=1e-12,
    )


def test_a_trace_gives_back_what_there_was():
    model = Keeps()
    h = torch.zeros(2, 6)
    model.kept, model.ramps[5] = h, h
    holders = [vars(model), model.found, model.found["h"], model.ramps, model.first._parameters]
    before = [copy.copy(holder) for holder in holders]
    problem = problem_of(model)
    weights = list(problem.parameters.values())
    with torch.autocast("cpu", torch.bfloat16, False) as off:
        StagedGraph(model, weights, nets.randn(3, 4), rest_moves=False, casting=off)
    for holder, values in zip(holders, before, strict=True):
        assert list(holder) == list(values)
        if isinstance(holder, dict):
            assert all(holder[key] is value for key, value in values.items())
    assert model.kept is h


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_given_plan_that_does_not_fit_is_refused(precision):
    problem = problem_of(Centres())
    with pytest.raises(InputError, match=r"the plan 'traced:7' does not fit this problem: "):
        Evaluator(
            problem, directions(problem), plan=EvaluationPlan("traced", 7), precision=precision
        )


def test_a_given_plan_is_held_against_plain_passes():
    """Nothing in the graph shows that examples see one another: a row for each is left."""

    class Turns(Net):
        def between(self, h: Tensor) -> Tensor:
            return h - 0.3 * h.roll(1, 0)

    problem = problem_of(Turns())
    with pytest.raises(InputError, match=r"plan 'traced:7' .*: losses differ by up to \d"):
        Evaluator(problem, directions(problem), plan=EvaluationPlan("traced", 7))


def test_a_given_plan_costs_its_check_and_no_more():
    problem = problem_of(Net())
    found = Evaluator(problem, directions(problem))
    passes: list[int] = []
    problem.model.register_forward_hook(lambda *_: passes.append(1))
    given = Evaluator(problem, directions(problem), plan=found.plan)
    assert len(passes) == 3 * len(problem.batches) + 1  # three places, and the trace
    np.testing.assert_array_equal(given.evaluate(PLACES)[0], found.evaluate(PLACES)[0])
    passes.clear()
    Evaluator(problem, directions(problem), plan=EvaluationPlan("plain", COUNT))
    assert passes == []


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.cell = kind(4, 5, batch_first=True, **options)
        self.read = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.cell(x)[0][:, -1])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_nets_are_traced(kind, options):
    with nets.seeded():
        model = Recurrent(kind, **options).double()
        model(nets.randn(2, 6, 4))
    batches = [(nets.randn(7, 6, 4, seed=i), nets.labels(7)) for i in range(2)]
    problem = Problem(model, nets.cross_entropy, batches)
    evaluator = Evaluator(problem, directions(problem))
    assert evaluator.plan.strategy == "traced", evaluator.plan.why
    np.testing.assert_allclose(evaluator.evaluate(PLACES)[0], truth(problem), rtol=1e-12)
