"""What every method of the table owes, the table's next entry included."""

import numpy as np
import pytest
import torch
from method_reference import (
    REFERENCES,
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

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS

# Settings at which a method is plain SGD; passes that it makes for each step.
ZERO = {
    "sgd": {},
    "s-sgd": {"noise_scale": 0.0},
    "wni": {"noise_scale": 0.0},
    "wni-2": {"noise_scale": 0.0},
    "sam": {"rho": 0.0},
}
PASSES = {"sgd": 1, "s-sgd": 2, "wni": 1, "wni-2": 2, "sam": 2}
NOISY = ["s-sgd", "wni", "wni-2"]

VARIANTS = [(name, {}) for name in METHODS] + [
    ("s-sgd", {"minibatch": "halves"}),
    ("s-sgd", {"noise_scale": 0.5}),
    ("s-sgd", {"noise_law": "gaussian", "noise_relative_to": "layer"}),
    ("s-sgd", {"noise_law": "sphere"}),
    ("s-sgd", {"noise_law": "sphere", "noise_relative_to": "layer"}),
    ("s-sgd", {"noise_law": "uniform", "noise_relative_to": "weight"}),
    ("wni", {"noise_relative_to": "none", "noise_scale": 0.03}),
    ("wni", {"noise_schedule": "linear", "noise_end": 3.0}),
    ("wni-2", {"noise_schedule": "cosine"}),
    ("s-sgd", {"noise_schedule": "sqrt", "noise_end": 0.5}),
    ("sam", {"rho": 1.0}),
]


def _network_with_bn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.0), nn.Linear(5, 3)
    )


@pytest.mark.parametrize("table", [REFERENCES, ZERO, PASSES])
def test_every_method_is_held_to_its_equation(table):
    assert set(table) == set(METHODS), "a new method owes a slow reading of its equation"


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_matches_the_slow_reading_of_its_equation(name, settings):
    model = network()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    method = make_method(name, model, seed=5, **settings)
    base = HeavyBall(lr=0.2, momentum=0.9, weight_decay=0.05)
    for number in range(5):
        inputs, targets = minibatch(number)
        step = Step(method.settings, seed=5, number=number, elapsed=number / 10)
        weights = base.update(weights, REFERENCES[name](weights, inputs, targets, step))
    run_steps(method, 5)
    for found, expected in zip(model.parameters(), weights, strict=True):
        # float64 and five steps of a few dozen roundings each
        torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "settings"), [v for v in VARIANTS if v[0] != "sgd"])
def test_the_equations_can_be_told_apart(name, settings):
    """Guards the test above: SGD's weights would not pass for this method's."""
    model, plain = network(), network()
    run_steps(make_method(name, model, seed=5, **settings), 5)
    run_steps(make_method("sgd", plain), 5)
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
    run_steps(make_method(name, model, Still(model.parameters()), **settings), 3)
    assert bits(model) == before


@pytest.mark.parametrize(
    ("name", "failing_call"), [(n, call) for n in PASSES for call in range(1, PASSES[n] + 1)]
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

    method.task.loss = broken
    before = bits(model)
    with pytest.raises(InputError, match="a broken loss"):
        run_steps(method, 1)
    assert bits(model) == before
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_repeats_under_a_seed_whatever_the_global_generators_do(name, settings):
    def trained(seed: int, elsewhere: int) -> list[bytes]:
        model = network()
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)  # noqa: NPY002
        state = torch.get_rng_state()
        run_steps(make_method(name, model, seed=seed, **settings), 4)
        assert torch.equal(torch.get_rng_state(), state)
        return bits(model)

    first = trained(3, 0)
    assert trained(3, 1) == first
    assert (trained(4, 0) != first) == (name in NOISY)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("make", [network, _network_with_bn])
def test_zero_strength_is_sgd_bit_for_bit(name, make):
    model, plain = make(), make()
    losses = run_steps(make_method(name, model, **ZERO[name]), 5)
    expected = run_steps(make_method("sgd", plain), 5)
    assert bits(model) == bits(plain)
    assert losses == expected
    for found, buffer in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, buffer)


@pytest.mark.parametrize("name", METHODS)
def test_passes_are_counted(name):
    method = make_method(name, network())
    assert method.task.gradients == 0
    run_steps(method, 3)
    assert method.task.gradients == 3 * PASSES[name]
    assert isinstance(method.task.gradients, int)


def test_halves_cost_one_pass_also_where_they_are_not_equal():
    method = make_method("s-sgd", network(), batch_size=7, minibatch="halves")
    run_steps(method, 3, size=7)
    assert method.task.gradients == 3


@pytest.mark.parametrize(("name", "expected"), [("s-sgd", 7), ("wni", 4), ("wni-2", 7)])
def test_a_clean_forward_pass_counts_a_third(name, expected):
    method = make_method(name, _network_with_bn(), bn_stats="clean")
    run_steps(method, 1)
    assert method.task.gradients == pytest.approx(expected / 3, abs=1e-6)  # kept to six digits
    run_steps(method, 2)
    assert method.task.gradients == expected


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
    run_steps(make_method(name, model, torch.optim.SGD(trainable, lr=0.1)), 3)
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
    assert seen == before * PASSES[name]


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_an_earlier_step_do_not_leak_in(name):
    model, other = network(), network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    run_steps(make_method(name, model), 1)
    run_steps(make_method(name, other), 1)
    assert bits(model) == bits(other)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_explains_itself(name):
    summary = METHODS[name].summary()
    assert 10 < len(summary) < 100
    assert "\n" not in summary
