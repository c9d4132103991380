"""Worst cases by several starts, against a plain ascent of long runs from many starts."""

import math

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS, Bench
from ssgd_analysis.flatness.ascent import STARTS
from ssgd_analysis.problem import Problem

BALLS = ("worst_case", "m_sharpness", "adaptive_worst")


def fitted(model: nn.Module, shape: tuple[int, ...], count: int = 48) -> nets.Case:
    """Five classes of random inputs, learned."""
    inputs, targets = nets.randn(count, *shape), nets.labels(count, classes=5)
    case = nets.Case(model.double(), nets.cross_entropy, inputs, targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        case.loss(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    return nets.Case(model.eval(), case.loss, inputs, targets)


def group_norm() -> nets.Case:
    with nets.seeded():
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.GroupNorm(2, 4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3),
            nn.GroupNorm(2, 6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        )
    return fitted(model, (1, 5, 5))


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.read = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0][:, -1])


def lstm() -> nets.Case:
    with nets.seeded():
        model = Reads()
    return fitted(model, (6, 3))


def plain_ascent(case: nets.Case, scale: Tensor, rho: float, starts: int, steps: int) -> float:
    """The best rise that projected gradient ascent with ever smaller steps finds in an L2 ball.

    From the clean weights and from random points of the sphere, one after another.
    """
    w = reference.flat_weights(case.model)
    low, best = reference.loss_at(case, w), 0.0
    for start in range(starts):
        u = torch.zeros_like(w) if start == 0 else nets.randn(len(w), seed=100 + start)
        u = rho * u / u.norm().clamp_min(1e-300)
        for step in range(steps):
            slope = scale * reference.gradient(case, w + scale * u)
            u = u + rho * (1 + math.cos(math.pi * step / steps)) / 4 * slope / slope.norm()
            u = u * min(1.0, rho / float(u.norm()))
        best = max(best, reference.loss_at(case, w + scale * u) - low)
    return best


@pytest.mark.parametrize("net", [group_norm, lstm])
@pytest.mark.parametrize(
    ("name", "rho"), [("worst_case", 0.05), ("worst_case", 1.0), ("adaptive_worst", 2.0)]
)
def test_defaults_find_what_long_ascents_from_six_starts_find(net, name, rho):
    case = net()
    w = reference.flat_weights(case.model)
    scale = w.abs() if name == "adaptive_worst" else torch.ones_like(w)
    truth = plain_ascent(case, scale, rho, starts=6, steps=200)
    found = METRICS[name].measure(case.model, case.loss, case.batches(16), rho=rho)
    assert found.value >= 0.97 * truth  # what is promised; no upper bound: ours may find more
    assert found.details["from_clean"] <= found.value


def test_one_start_falls_short_where_there_are_several_maxima():
    """Else the test above would say nothing of the starts."""
    case = group_norm()
    scale = torch.ones_like(reference.flat_weights(case.model))
    truth = plain_ascent(case, scale, 1.0, starts=6, steps=200)
    alone = METRICS["worst_case"].measure(*case.problem, rho=1.0, starts=1)
    assert alone.value < 0.97 * truth
    many = METRICS["worst_case"].measure(*case.problem, rho=1.0)
    assert many.details["from_clean"] == pytest.approx(alone.value, rel=1e-9)


def test_two_maxima_of_one_weight():
    """L = w + w²: in the ball around zero the clean slope leads to one side, and that is higher.

    With a barrier on that side the other one is: only a start opposite to the first end finds it.
    """

    class Tilted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        w = model.w[0]
        return (w - 2 * w**2 + 0 * batch.sum()).clamp_min(-2.0 - w.abs()) + 3 * w.relu() * (-w).exp() \
            + 9 * (-w).relu() ** 2  # fmt: skip

    batch = [torch.zeros(2, dtype=torch.float64)]
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    model = Tilted()
    values = []
    for place in grid:
        model.w.data.fill_(float(place))
        values.append(float(loss(model, batch[0])))
    model.w.data.zero_()
    top = max(values) - float(loss(model, batch[0]))
    found = METRICS["worst_case"].measure(model, loss, batch, rho=1.0)
    assert found.details["from_clean"] < 0.9 * top  # the slope at zero points to the lower side
    assert found.value == pytest.approx(top, rel=1e-6)


@pytest.mark.parametrize("name", BALLS)
def test_more_starts_find_no_less(name):
    case = group_norm()
    found = [
        METRICS[name].measure(case.model, case.loss, case.batches(16), rho=1.0, starts=starts)
        for starts in (1, 2, 32)
    ]
    values = [one.value for one in found]
    assert values == sorted(values)
    assert [one.settings["starts"] for one in found] == [1, 2, 32]
    assert [one.details["starts"] for one in found] == [1, 2, 32]


@pytest.mark.parametrize("m", [0, 12])
def test_the_spread_of_the_starts_is_told(m):
    case = group_norm()
    found = METRICS["adaptive_worst"].measure(case.model, case.loss, case.batches(16), rho=2.0, m=m)
    low, high = found.details["ends"]
    assert found.details["bound"] == "lower"
    assert high == pytest.approx(found.value, rel=1e-9)
    assert low <= found.details["from_clean"] <= high
    least, middle, most = found.details["tried"]
    assert least <= middle <= most <= high * (1 + 1e-12)
    alone = METRICS["adaptive_worst"].measure(*case.problem, starts=1)
    assert alone.details["tried"] is None
    assert alone.details["ends"] == [alone.value, alone.value]


def test_rounds_go_on_until_the_best_stops_rising():
    case = group_norm()
    fixed, rounds = (
        METRICS["worst_case"].measure(case.model, case.loss, case.batches(16), rho=1.0, starts=n)
        for n in (STARTS, 0)
    )
    assert rounds.value >= fixed.value
    assert rounds.details["starts"] >= STARTS
    assert rounds.settings["starts"] == 0
    few = nets.mlp()  # 11 examples give 24 starts, and no more
    assert METRICS["worst_case"].measure(*few.problem, starts=0).details["starts"] == 2 * nets.N + 2


def test_an_unfit_number_of_starts_is_refused():
    with pytest.raises(InputError, match="starts -1 should be"):
        METRICS["worst_case"].measure(*nets.mlp().problem, starts=-1)


def test_cost_of_the_search():
    case = group_norm()
    cost = METRICS["worst_case"].measure(case.model, case.loss, case.batches(16)).cost
    # 20 steps; 31 starts of 3; three of these 17 more; 15 examples, the last in both directions
    assert cost.gradients == pytest.approx(20 + 31 * 3 + 3 * 17 + 15 / 48)
    assert cost.forwards == pytest.approx(1 + 1 + 31 + 3 + 2 / 3)  # and whether it may be cut


class Centred(nn.Module):
    """Examples of a batch see one another: none has a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        out = self.read(x)
        return out * out.sum(dim=0)


def test_starts_are_random_where_no_example_stands_alone():
    with nets.seeded():
        case = nets.Case(Centred(), nets.cross_entropy, nets.randn(nets.N, 4), nets.labels())
    seen: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return case.loss(outputs, targets)

    found = METRICS["worst_case"].measure(case.model, loss, case.batches())
    assert found.details["starts"] == STARTS
    assert min(seen) > 1
    other = METRICS["worst_case"].measure(case.model, loss, case.batches(), seed=1)
    assert found.details["tried"] != other.details["tried"]


def test_an_example_without_a_label_is_no_start():
    case = nets.mlp()
    targets = case.targets.clone()
    targets[:4] = -100

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        rows = nn.functional.cross_entropy(outputs, targets, reduction="none", ignore_index=-100)
        return rows.mean() + 0.0 / (targets >= 0).sum()  # not a number for none alone

    bench = Bench(Problem(case.model, loss, [(case.inputs, targets)]))
    bench.keep("cuttable", True)
    found = METRICS["worst_case"].measure.on(bench)
    assert found.details["starts"] == 2 * (nets.N - 4) + 2
    assert np.isfinite(found.value)
