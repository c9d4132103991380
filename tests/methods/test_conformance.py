"""What every method of the table owes, the table's next entry included."""

import numpy as np
import pytest
import torch
from method_checks import methods_without_reading
from readings import READINGS
from readings.base import (
    HeavyBall,
    Step,
    Still,
    bits,
    loss,
    make_method,
    minibatch,
    moved,
    network,
    noise,
    run_steps,
)
from torch import nn

from ssgd_analysis import batch as batching
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS, find_method
from ssgd_analysis.methods.when import When

VARIANTS = [
    (name, settings) for name, reading in READINGS.items() for settings in ({}, *reading.variants)
]
MOVING = [variant for variant in VARIANTS if READINGS[variant[0]].zero != variant[1]]
COUNTED = [name for name, reading in READINGS.items() if reading.passes is not None]
WHOLE = [name for name in COUNTED if READINGS[name].passes == int(READINGS[name].passes)]
ZEROED = [name for name, reading in READINGS.items() if reading.zero is not None]
NOISY = ["s-sgd", "wni", "wni-2"]


def _network_with_bn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.0), nn.Linear(5, 3)
    )


def test_every_method_is_held_to_its_equation():
    assert methods_without_reading() == set(), "a new method owes a slow reading of its equation"


def _examples(name: str, settings: dict) -> int:
    """That a step is given, at a batch size of six."""
    method = find_method(name)
    return 6 * method.minibatches(method.Settings(**settings))


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_matches_the_slow_reading_of_its_equation(name, settings):
    model, reading = network(), READINGS[name]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    size = _examples(name, settings)
    method = make_method(name, model, seed=5, **settings)
    slow = HeavyBall(lr=0.2, momentum=0.9, weight_decay=0.05)
    base = reading.base() if reading.base else slow
    memory: dict = {}
    for number in range(5):
        inputs, targets = minibatch(number, size)
        elapsed = number / reading.total
        step = Step(
            method.settings, seed=5, number=number, elapsed=elapsed, memory=memory, base=base
        )
        moved_to = base.update(weights, reading.direction(weights, inputs, targets, step))
        weights = reading.after(weights, moved_to, step)
    run_steps(method, 5, size=size, total=reading.total)
    _assert_same(model, weights)
    if reading.given_out is not None:
        method.finish([minibatch(number, size) for number in range(5)])
        _assert_same(model, reading.given_out(weights, memory, method.settings))


def _assert_same(model, weights):
    for found, expected in zip(model.parameters(), weights, strict=True):
        # float64 and five steps of a few dozen roundings each
        torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "settings"), MOVING)
def test_the_equations_can_be_told_apart(name, settings):
    """Guards the test above: SGD's weights would not pass for this method's."""
    model, plain = network(), network()
    size = _examples(name, settings)
    method = make_method(name, model, seed=5, **settings)
    run_steps(method, 5, size=size, total=READINGS[name].total)
    method.finish([])
    run_steps(make_method("sgd", plain), 5, size=size)
    apart = [
        (a - b).abs().max() for a, b in zip(model.parameters(), plain.parameters(), strict=True)
    ]
    assert max(apart) > 1e-5


def test_the_reference_noise_is_what_the_paper_calls_fixed_magnitude():
    weights = [parameter.detach() for parameter in network().parameters()]
    settings = METHODS["s-sgd"].Settings(noise_scale=0.2)
    drawn = noise(weights, Step(settings, seed=1, number=0, elapsed=0.0), 0)
    assert drawn[1].count_nonzero() == 0
    size = 0.2 * weights[0].square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(drawn[0].abs(), size.expand(5, 4), rtol=1e-14, atol=0)
    assert {float(s) for s in drawn[0].sign().flatten()} == {-1.0, 1.0}


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_weights_after_the_passes_are_the_exact_bits_from_before(name, settings):
    model = _network_with_bn()
    with torch.no_grad():
        model[0].weight[0, :3] = torch.tensor([-0.0, 1e-42, 3e38])  # −0, a denormal, a giant
        model[4].weight[0, 0] = -0.0
    before = bits(model)
    size = _examples(name, settings)
    method = make_method(name, model, Still(model.parameters()), **settings)
    for number in range(3):
        batch = batching.to(minibatch(number, size), "cpu", model[0].weight.dtype)
        method.gradient(batch, When(step=number, fraction_done=number / 10))
        assert bits(model) == before


@pytest.mark.parametrize(
    ("name", "failing_call"),
    [(name, call) for name in WHOLE for call in range(1, int(READINGS[name].passes) + 1)],
)
def test_weights_come_back_when_a_pass_fails(name, failing_call):
    model = _network_with_bn()
    method = make_method(name, model)
    calls = []

    def broken(outputs, targets):
        calls.append(1)
        if len(calls) == failing_call:
            raise RuntimeError("a broken loss")
        return nn.functional.cross_entropy(outputs, targets)

    method.passes.loss = broken
    before = bits(model)
    with pytest.raises(InputError, match="a broken loss"):
        run_steps(method, 1, size=_examples(name, {}))
    assert bits(model) == before
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_repeats_under_a_seed_whatever_the_global_generators_do(name, settings):
    def trained(seed: int, elsewhere: int) -> list[bytes]:
        model = network()
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)  # noqa: NPY002
        state = torch.get_rng_state()
        method = make_method(name, model, seed=seed, **settings)
        run_steps(method, 4, size=_examples(name, settings))
        assert torch.equal(torch.get_rng_state(), state)
        return bits(model)

    first = trained(3, 0)
    assert trained(3, 1) == first
    assert (trained(4, 0) != first) == READINGS[name].random


@pytest.mark.parametrize("name", ZEROED)
@pytest.mark.parametrize("make", [network, _network_with_bn])
def test_zero_strength_is_sgd_bit_for_bit(name, make):
    model, plain = make(), make()
    losses = run_steps(make_method(name, model, **READINGS[name].zero), 5)
    expected = run_steps(make_method("sgd", plain), 5)
    assert bits(model) == bits(plain)
    assert losses == expected
    for found, buffer in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, buffer)


@pytest.mark.parametrize(("name", "settings"), [v for v in VARIANTS if v[0] in COUNTED])
def test_passes_are_counted(name, settings):
    """What is spent is what budgets reckon with, averaged over the period of a method."""
    method = make_method(name, network(), **settings)
    assert method.passes.gradients == 0
    run_steps(method, 30, size=_examples(name, settings), total=30)
    spent = method.passes.gradients
    assert spent == pytest.approx(
        30 * method.passes_per_step(method.settings), rel=1e-5
    )  # six digits
    if not settings:
        assert spent == pytest.approx(30 * READINGS[name].passes, rel=1e-5)
        assert isinstance(spent, int) == (spent == int(spent))


def test_halves_cost_one_pass_also_where_they_are_not_equal():
    method = make_method("s-sgd", network(), batch_size=7, minibatch="halves")
    run_steps(method, 3, size=7)
    assert method.passes.gradients == 3


@pytest.mark.parametrize(("name", "expected"), [("s-sgd", 7), ("wni", 4), ("wni-2", 7)])
def test_a_clean_forward_pass_counts_a_third(name, expected):
    method = make_method(name, _network_with_bn(), bn_stats="clean")
    run_steps(method, 1)
    assert method.passes.gradients == pytest.approx(expected / 3, abs=1e-6)  # kept to six digits
    run_steps(method, 2)
    assert method.passes.gradients == expected


def test_halves_need_two_examples():
    method = make_method("s-sgd", network(), batch_size=1, minibatch="halves")
    with pytest.raises(InputError, match="batch size of at least 2"):
        run_steps(method, 1, size=1)


def test_the_loss_reported():
    """S-SGD and WNI: the mean over their points; SAM and SGD: at w."""
    model = network()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    inputs, targets = minibatch(0)
    settings = METHODS["s-sgd"].Settings()
    n = noise(weights, Step(settings, seed=0, number=0, elapsed=0.0), 0)
    at_w, plus, minus = (
        float(loss(moved(weights, n, sign), inputs, targets)) for sign in (0, 1, -1)
    )
    expected = {"sgd": at_w, "sam": at_w, "wni": plus, "s-sgd": (plus + minus) / 2}
    for name, value in expected.items():
        (found,) = run_steps(make_method(name, network()), 1)
        assert found == pytest.approx(value, rel=1e-12)  # float64, a few dozen roundings


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_are_left_alone(name):
    model = network()
    model[0].requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    before = bits(model[0])
    method = make_method(name, model, torch.optim.SGD(trainable, lr=0.1))
    run_steps(method, 3, size=_examples(name, {}))
    assert bits(model[0]) == before
    assert model[0].weight.grad is None


@pytest.mark.parametrize("name", NOISY)
def test_frozen_parameters_get_no_noise(name):
    model = network()
    model[0].requires_grad_(False)
    seen = []
    model[0].register_forward_pre_hook(lambda module, _: seen.extend(bits(module)))
    before = bits(model[0])
    run_steps(make_method(name, model, Still(model[2].parameters())), 1)
    assert seen == before * int(READINGS[name].passes)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_an_earlier_step_do_not_leak_in(name):
    model, other = network(), network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    size = _examples(name, {})
    run_steps(make_method(name, model), 1, size=size)
    run_steps(make_method(name, other), 1, size=size)
    assert bits(model) == bits(other)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_explains_itself(name):
    summary = METHODS[name].summary()
    assert 10 < len(summary) < 100
    assert "\n" not in summary
