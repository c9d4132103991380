"""No metric and no random direction moves padding rows of embeddings or frozen weights."""

import nets
import pytest
import torch
from torch import Tensor, nn

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.metrics.quantization_drop import rounded_to
from ssgd_analysis.landscapes.directions.direction import normalized_directions
from ssgd_analysis.landscapes.directions.random import random_directions
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import Filters

PAD = 2
# more than defaults tell, or what the defaults can't measure on so small a network
SETTINGS = {
    "pac_bayes_sigma": [{"of": "loss"}],
    "keskar": [{}, {"subspace": 5}],
    "expected": [{"scale": scale} for scale in ("weight", "filter", "layer", "none")],
    "quantization_drop": [{"bits": 2}],
    "relative_flatness": [{}, {"layer": "embed"}],
    "m_sharpness": [{"m": 4}],
}
MOVE = {
    "expected", "sam", "worst_case", "m_sharpness", "keskar", "adaptive_worst", "lpf", "volume",
    "local_entropy", "symmetric_gap", "asymmetry", "pac_bayes_sigma", "quantization_drop",
    "noise_robustness",
}  # fmt: skip


class Reads(nn.Module):
    """Embeddings with a padding row that is not zero, a frozen layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=PAD)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.body.requires_grad_(False)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        weight = self.embed.weight.detach().clone()
        if not torch._C._functorch.maybe_current_level():  # not within torch.func
            self.seen.append((weight[PAD], weight, self.body.weight.detach().clone()))
        return self.head(torch.tanh(self.body(self.embed(tokens).mean(dim=1))))


def problem() -> Problem:
    with nets.seeded():
        model = Reads().double()
    with torch.no_grad():
        model.embed.weight[PAD] = 0.5
    tokens = torch.randint(0, 7, (nets.N, 5), generator=nets.generator())
    return Problem(*nets.Case(model, nets.cross_entropy, tokens, nets.labels()).problem)


@pytest.mark.parametrize(
    ("name", "chosen"),
    # but for the one that wants real inputs, and moves nothing
    [(n, c) for n in METRICS if n != "input_jacobian" for c in SETTINGS.get(n, [{}])],
)
def test_metrics_leave_constants_alone(name, chosen):
    found = problem()
    frozen = found.model.body.weight.detach().clone()
    METRICS[name].on(MetricContext(found, 1), **chosen)
    assert found.model.seen
    for row, _, body in found.model.seen:
        assert bool((row == 0.5).all())
        assert torch.equal(body, frozen)
    if name in MOVE:
        assert len({nets.bits(weight) for _, weight, _ in found.model.seen}) > 1


@pytest.mark.parametrize("steps", [1, 3])
def test_an_ascent_that_starts_at_random_leaves_them_alone(steps):
    """Where the gradient is exactly zero, a random direction is as good as any."""
    found = problem()
    flat = Problem(found.model, lambda y, t: y.square().sum() * 0, found.batches)
    for name in ("worst_case", "adaptive_worst"):
        METRICS[name].on(MetricContext(flat, 1), steps=steps)
    assert all(bool((row == 0.5).all()) for row, _, _ in found.model.seen)
    assert len({nets.bits(weight) for _, weight, _ in found.model.seen}) > 1


@pytest.mark.parametrize("name", sorted(MOVE))
def test_a_constant_has_no_part_in_the_size_of_noise(name):
    """No example uses the row: whatever stands in it, the function is the same."""
    values = []
    for constant in (0.0, 3.0):
        found = problem()
        with torch.no_grad():
            found.model.embed.weight[PAD] = constant
        unused = [(x.masked_fill(x == PAD, 0), y) for x, y in found.batches]
        context = MetricContext(Problem(found.model, found.loss, unused), 1)
        chosen = {"scale": "filter"} if name in ("expected", "noise_robustness") else {}
        chosen |= SETTINGS.get(name, [{}])[0] if name != "expected" else {}
        values.append(METRICS[name].on(context, **chosen).value)
    assert values[0] == values[1]


@pytest.mark.parametrize("how", ["filter", "layer", "none"])
def test_random_directions_leave_them_alone(how):
    found = problem()
    place = list(found.parameters).index("embed.weight")
    directions = random_directions(found, 2, seed=3)
    found.model.embed.padding_idx = None
    plain = random_directions(found, 2, seed=3)
    found.model.embed.padding_idx = PAD
    weight = found.parameters["embed.weight"].detach()
    live = torch.arange(7) != PAD
    for one, other in zip(directions, plain, strict=True):  # the draws are the same
        changed = [not torch.equal(*pair) for pair in zip(one, other, strict=True)]
        assert changed == [i == place for i in range(len(changed))]
        assert torch.equal(one[place][live], other[place][live])
    for direction in normalized_directions(found, directions, how):
        assert not direction[place][PAD].any()
        if how == "filter":  # of each feature, over the rows that are weights
            norms = [part[live].norm(dim=0) for part in (direction[place], weight)]
            torch.testing.assert_close(*norms, rtol=1e-13, atol=0)
        if how == "layer":
            norms = [part[live].norm() for part in (direction[place], weight)]
            torch.testing.assert_close(*norms, rtol=1e-13, atol=0)


def test_rounding_by_units_of_an_embedding():
    weight = nets.randn(7, 3)
    weight[PAD] = 100.0  # no weight: it must not set the step
    found = rounded_to(weight, 3, Filters(axis=1, constant=PAD))
    live = torch.arange(7) != PAD
    assert torch.equal(found[PAD], weight[PAD])
    for unit in range(3):
        column = weight[live, unit]
        step = column.abs().max() / 3
        torch.testing.assert_close(found[live, unit], (column / step).round() * step)
