"""What METRICS claims of reparametrisations, tried on networks that compute the same function."""

from collections.abc import Callable

import nets
import pytest
import torch
from torch import Tensor, nn

from ssgd_analysis.flatness import METRICS

Change = Callable[[nn.Module], None]


def rescale(model: nn.Sequential, first: int, second: int, factors: Tensor) -> None:
    """Units out of layer ``first`` by ``factors``, undone at the entry of layer ``second``."""
    with torch.no_grad():
        model[first].weight.mul_(factors[:, None])
        model[first].bias.mul_(factors)
        model[second].weight.div_(factors)


def layer(model: nn.Sequential) -> None:
    rescale(model, 0, 2, torch.full((6,), 3.0, dtype=torch.float64))


def neuron(model: nn.Sequential) -> None:
    rescale(model, 0, 2, torch.tensor([0.3, 1, 2, 4, 0.5, 3], dtype=torch.float64))
    rescale(model, 2, 4, torch.tensor([2, 0.4, 1, 5, 0.7], dtype=torch.float64))


def batchnorm(model: nn.Sequential) -> None:
    """Convolutions by a factor, with the statistics that they would have left behind.

    ``eps`` is a size of the same kind as the variance, so it goes along.
    """
    for convolution, norm, factor in ((0, 1, 3.0), (3, 4, 0.5)):
        with torch.no_grad():
            for parameter in model[convolution].parameters():
                parameter.mul_(factor)
            model[norm].running_mean.mul_(factor)
            model[norm].running_var.mul_(factor**2)
        model[norm].eps *= factor**2


CHANGES: dict[str, tuple[Callable[[], nets.Case], Change]] = {
    "layer": (nets.relu, layer),
    "neuron": (nets.relu, neuron),
    "batchnorm": (nets.conv_batchnorm, batchnorm),
}
CLAIMS = [(name, k) for name, e in METRICS.items() for k in e.invariant_to if k in CHANGES]
# numbers without unit: they do change, but by some changes little; see below
RATIOS = ("spectral_norm_ratio", "negative_mass", "gradient_noise_scale")
NO_CLAIMS = [
    (name, kind)
    for name, entry in METRICS.items()
    if not entry.invariant_to and name not in RATIOS
    for kind in CHANGES
]

# where the defaults leave these little untrained nets as they were, or the clean loss covers it
SETTINGS = {
    "quantization_drop": {"bits": 2},
    "noise_robustness": {"sigma": 1.0},
    "lpf": {"value_of": "rise"},
}


def pair(kind: str) -> tuple[nets.Case, nets.Case]:
    """The same function twice, in two parametrisations."""
    make, change = CHANGES[kind]
    first, second = make(), make()
    change(second.model)
    outputs = [nets.evaluated(case.model)(case.inputs) for case in (first, second)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True)
    )
    return first, second


def values(name: str, kind: str) -> list[float]:
    settings = SETTINGS.get(name, {})
    found = [METRICS[name].measure(*case.problem, **settings) for case in pair(kind)]
    # the accuracy of 11 examples may not change at all: the loss at the same weights does
    return [one.details.get("loss_rise", one.value) for one in found]


@pytest.mark.parametrize(("name", "kind"), CLAIMS)
def test_claimed_invariance_holds(name, kind):
    first, second = values(name, kind)
    # the same numbers computed from other roundings; ten ascent steps amplify them a little
    assert second == pytest.approx(first, rel=1e-8)
    assert abs(first) > 1e-6  # not the invariance of nothing


@pytest.mark.parametrize(("name", "kind"), NO_CLAIMS)
def test_metrics_without_claims_do_change(name, kind):
    first, second = values(name, kind)
    assert abs(second - first) > 0.1 * abs(first)


@pytest.mark.parametrize("name", RATIOS)
def test_ratios_change_by_one_of_the_changes(name):
    moved = [abs(second / first - 1) for first, second in (values(name, kind) for kind in CHANGES)]
    assert max(moved) > 0.1


def test_something_is_claimed_and_something_is_not():
    assert CLAIMS
    assert NO_CLAIMS
