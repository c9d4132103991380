"""Rescaled output units before a BatchNorm: the same function, the same numbers by filter."""

import copy

import nets
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.landscapes.directions.direction import normalized_directions
from ssgd_analysis.landscapes.directions.random import random_directions
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.layer_edits import scale_outputs
from ssgd_analysis.weights import PLAIN


def transposed(**options: int) -> nn.Module:
    layer = nn.ConvTranspose2d(4, 6, 2, bias=False, **options)
    head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 16, 3))
    return nn.Sequential(layer, nn.BatchNorm2d(6), nn.Tanh(), head)


def flat(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def hugging_face() -> nn.Module:
    layer = Conv1D(6, 4)
    layer.bias.requires_grad_(False)  # zero: as a vector it would have one size for all units
    return flat(layer)


def bag() -> nn.Module:
    return flat(nn.EmbeddingBag(7, 6, padding_idx=2))


IMAGES, TOKENS = (40, 4, 3, 3), torch.randint(0, 7, (40, 3), generator=nets.generator())
NETS = {
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 2, bias=False), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(),
            nn.Linear(24, 3)
        ),
        nets.randn(*IMAGES),
    ),
    "transposed": (transposed, nets.randn(*IMAGES)),
    "transposed, groups": (lambda: transposed(groups=2), nets.randn(*IMAGES)),
    "hugging face": (hugging_face, nets.randn(40, 4)),
    "bag": (bag, TOKENS),
}  # fmt: skip
METRICS_BY_FILTER = {
    "symmetric_gap": {},
    "asymmetry": {},
    "volume": {},
    "quantization_drop": {"bits": 3},
    "expected": {"scale": "filter"},
    "noise_robustness": {"scale": "filter", "sigma": 0.5},
    "pac_bayes_sigma": {"scale": "filter", "of": "loss"},
}


def both(name: str) -> tuple[Problem, Problem]:
    """A network, and the same function with each unit before the BatchNorm by a factor."""
    make, inputs = NETS[name]
    with nets.seeded():
        model = make().double().train()
    targets = nets.labels(40)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(60):  # to a loss that rises along most directions
        optimizer.zero_grad()
        nets.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    other = copy.deepcopy(model)
    factors = torch.tensor([0.03, 0.2, 1.0, 5.0, 20.0, 40.0], dtype=torch.float64)
    with torch.no_grad():
        scale_outputs(other[0], factors)
        norm = other[1]
        norm.running_mean.mul_(factors)
        norm.running_var.add_(norm.eps).mul_(factors**2).sub_(norm.eps)
    batches = list(zip(inputs.split(15), targets.split(15), strict=True))
    one, two = (Problem(net, nets.cross_entropy, batches) for net in (model, other))
    for (x, _), before, after in zip(batches, one.batch_losses(), two.batch_losses(), strict=True):
        assert after == pytest.approx(before, rel=1e-12), x.shape  # the same function
    return one, two


@pytest.mark.parametrize("metric", METRICS_BY_FILTER)
@pytest.mark.parametrize("net", NETS)
def test_metrics_by_filter_stay(net, metric):
    before, after = (
        # rounding costs so small a network no accuracy: the rise of its loss, then
        found.details.get("loss_rise", found.value)
        for found in (
            METRICS[metric].on(MetricContext(problem, 1), **METRICS_BY_FILTER[metric])
            for problem in both(net)
        )
    )
    assert abs(before) > 1e-6, "the invariance of nothing"
    assert after / before == pytest.approx(1, abs=1e-8)


def test_filters_along_the_wrong_axis_would_not_stay():
    benches = [MetricContext(problem, 1) for problem in both("transposed")]
    for context in benches:
        context.filters = [PLAIN] * len(context.parameters)
    before, after = (METRICS["symmetric_gap"].on(context).value for context in benches)
    assert not 1 / 3 < after / before < 3


def losses(problem: Problem) -> list[float]:
    """Along a random direction by filters."""
    (direction,) = normalized_directions(problem, random_directions(problem, 1, seed=3), "filter")
    context = MetricContext(problem)
    found = []
    with context.moved() as clean:
        for alpha in (-1.0, -0.3, 0.3, 1.0):
            context.put(clean, direction, alpha)
            found.append(problem.mean_loss())
    return found


@pytest.mark.parametrize("net", NETS)
def test_landscapes_by_filter_stay(net):
    before, after = (losses(problem) for problem in both(net))
    assert after == pytest.approx(before, rel=1e-9)
    assert max(before) > 1.01 * min(before)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("net", ["transposed", "transposed, groups", "hugging face"])
def test_relative_flatness_has_a_row_for_each_unit(net, last):
    """κ = Σ ⟨w_s, w_t⟩ Tr(H_st), term by term from the dense Hessian of the layer."""
    problem, _ = both(net)
    if last:
        model = problem.model[:1]
        head = (lambda y: y.mean(dim=(2, 3))) if net != "hugging face" else (lambda y: y)
        problem = Problem(model, lambda y, t: nets.cross_entropy(head(y), t), problem.batches)
    place = list(problem.parameters).index("0.weight")
    weight = problem.parameters["0.weight"].detach()

    def loss(own: Tensor) -> Tensor:
        parts = [own if i == place else p for i, p in enumerate(problem.parameters.values())]
        found = [problem.loss_at(parts, batch) for batch in problem.batches]
        return sum(share * part for share, part in zip(problem.shares, found, strict=True))

    with problem.evaluating():
        hessian = torch.autograd.functional.hessian(loss, weight)
    numbers = torch.arange(weight.numel()).reshape(weight.shape)
    flat, matrix = weight.flatten(), hessian.reshape(weight.numel(), -1)
    if net == "transposed, groups":  # unit o of group o // 3 sees two of the four inputs
        rows = [numbers[2 * (o // 3) : 2 * (o // 3) + 2, o % 3].flatten() for o in range(6)]
    else:
        rows = [numbers[:, o].flatten() for o in range(6)]
    kappa = sum((flat[s] @ flat[t]) * matrix[s][:, t].diagonal().sum() for s in rows for t in rows)
    layer = {} if last else {"layer": "0"}
    found = METRICS["relative_flatness"].on(MetricContext(problem), **layer)
    assert found.settings["layer"] == "0.weight"
    assert found.value == pytest.approx(float(kappa), rel=1e-9)
