"""Which of a step's passes update BatchNorm's statistics, worked out by hand."""

import pytest
import torch
from readings.base import Step, Still, loss, make_method, minibatch, noise, run_steps, sample_noises
from torch import Tensor, nn

from ssgd_analysis.methods import METHODS

MOMENTUM = 0.1  # of torch's BatchNorm: running ← 0.9 running + 0.1 mean


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()


def _points(model: nn.Module) -> dict[str, Tensor]:
    """Means over the minibatch that BatchNorm sees at each point of the first step."""
    inputs, _ = minibatch(0)
    first, bias = model[0].weight.detach(), model[0].bias.detach()
    weights = [first, bias, model[3].weight.detach(), model[3].bias.detach()]
    step = Step(METHODS["s-sgd"].Settings(), seed=0, number=0, elapsed=0.0)
    draws = [noise(weights, step, draw)[0] for draw in (0, 1)]
    places = {"w": first, "+n": first + draws[0], "-n": first - draws[0], "+n'": first + draws[1]}
    places["-n'"] = first - draws[1]
    means = {name: (inputs @ weight.T + bias).mean(dim=0) for name, weight in places.items()}
    means["+n of half"] = (inputs[:3] @ places["+n"].T + bias).mean(dim=0)
    means["-n of half"] = (inputs[3:] @ places["-n"].T + bias).mean(dim=0)
    for name, sign in (("+n of each", 1), ("-n of each", -1)):
        owned = sample_noises(weights, step, 0, len(inputs))
        seen = [(first + sign * own[0]) @ x + bias for own, x in zip(owned, inputs, strict=True)]
        means[name] = torch.stack(seen).mean(dim=0)
    return means


def _running(means: list[Tensor]) -> Tensor:
    running = torch.zeros(5, dtype=torch.float64)
    for mean in means:
        running = (1 - MOMENTUM) * running + MOMENTUM * mean
    return running


EXPECTED = [
    ("sgd", {}, ["w"]),
    ("s-sgd", {}, ["+n"]),
    ("s-sgd", {"bn_stats": "first"}, ["+n"]),
    ("s-sgd", {"bn_stats": "clean"}, ["w"]),
    ("s-sgd", {"bn_stats": "both"}, ["+n", "-n"]),
    ("s-sgd", {"bn_stats": "frozen"}, []),
    ("wni", {"bn_stats": "first"}, ["+n"]),
    ("wni", {"bn_stats": "clean"}, ["w"]),
    ("wni", {"bn_stats": "both"}, ["+n"]),
    ("wni", {"bn_stats": "frozen"}, []),
    ("wni-2", {"bn_stats": "first"}, ["+n"]),
    ("wni-2", {"bn_stats": "clean"}, ["w"]),
    ("wni-2", {"bn_stats": "both"}, ["+n", "+n'"]),
    ("wni-2", {"bn_stats": "frozen"}, []),
    ("sam", {}, ["w"]),
    ("sam", {"bn_stats": "frozen"}, []),
    *[(name, {}, ["w"]) for name in ("asam", "gsam", "esam", "looksam", "gradient-penalty")],
    ("esam", {"bn_stats": "frozen"}, []),
    ("looksam", {"bn_stats": "frozen"}, []),
]


EXPECTED += [
    ("s-sgd", {"pairs": 2}, ["+n"]),
    ("s-sgd", {"pairs": 2, "bn_stats": "both"}, ["+n", "-n", "+n'", "-n'"]),
    ("s-sgd", {"pairs": 2, "bn_stats": "clean"}, ["w"]),
    ("s-sgd", {"minibatch": "halves"}, ["+n of half"]),
    ("s-sgd", {"minibatch": "halves", "bn_stats": "both"}, ["+n of half", "-n of half"]),
    ("s-sgd", {"noise_scale": 0.0}, ["w"]),
    ("s-sgd", {"noise_stop": 0.0, "bn_stats": "clean"}, ["w"]),
    ("s-sgd", {"noise_stop": 0.0, "bn_stats": "frozen"}, []),
    ("s-sgd", {"noise_per": "sample", "bn_stats": "clean"}, ["w"]),
    ("s-sgd", {"noise_per": "sample"}, ["+n of each"]),
    ("s-sgd", {"noise_per": "sample", "bn_stats": "both"}, ["+n of each", "-n of each"]),
]


@pytest.mark.parametrize(("name", "settings", "updates"), EXPECTED)
def test_running_statistics_after_one_step(name, settings, updates):
    model = _model()
    means = _points(model)
    run_steps(make_method(name, model, Still(model.parameters()), **settings), 1)
    assert model[1].num_batches_tracked == len(updates)
    expected = _running([means[update] for update in updates])
    torch.testing.assert_close(model[1].running_mean, expected, rtol=1e-12, atol=1e-14)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("name", "passes"),
    [("sam", 2), ("asam", 2), ("gsam", 2), ("esam", 3), ("looksam", 2), ("gradient-penalty", 2)],
)
def test_sam_and_its_kin_can_update_in_all_passes(name, passes):
    model = _model()
    run_steps(make_method(name, model, Still(model.parameters()), bn_stats="both"), 1)
    assert model[1].num_batches_tracked == passes


def test_each_part_of_sams_minibatch_has_a_clean_pass():
    model = _model()
    run_steps(make_method("sam", model, Still(model.parameters()), m=2), 1)
    assert model[1].num_batches_tracked == 3


@pytest.mark.parametrize("name", ["s-sgd", "wni", "wni-2", "sam"])
@pytest.mark.parametrize("policy", ["first", "clean", "both", "frozen"])
def test_several_steps_count_up(name, policy):
    if name == "sam" and policy == "clean":
        return
    model = _model()
    run_steps(make_method(name, model, bn_stats=policy), 4)
    for_each_step = {"first": 1, "clean": 1, "both": 1 if name == "wni" else 2, "frozen": 0}
    assert model[1].num_batches_tracked == 4 * for_each_step[policy]


def test_frozen_normalises_with_the_running_statistics():
    model = _model()
    model[1].running_mean.copy_(torch.arange(5.0))
    model[1].running_var.copy_(torch.arange(1.0, 6.0))
    inputs, targets = minibatch(0)
    scale = (model[1].running_var + model[1].eps).rsqrt()
    folded = [  # BatchNorm at fixed statistics is part of the first layer
        scale[:, None] * model[0].weight.detach(),
        scale * (model[0].bias.detach() - model[1].running_mean),
        model[3].weight.detach(),
        model[3].bias.detach(),
    ]
    expected = float(loss(folded, inputs, targets))
    (found,) = run_steps(make_method("sam", model, bn_stats="frozen"), 1)
    # float64, a few dozen roundings; batch statistics would differ in the first digit
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("policy", ["first", "clean", "both", "frozen"])
def test_a_layer_that_its_owner_froze_stays_frozen(policy):
    model = _model()
    model[1].eval()
    run_steps(make_method("s-sgd", model, bn_stats=policy), 2)
    assert not model[1].training
    assert model[1].num_batches_tracked == 0
    assert model[0].training
