"""Methods inside wrappers: names, settings, passes, order, resume."""

import copy
import dataclasses

import pytest
import torch
from readings import READINGS
from readings.base import bits, make_method, minibatch, network, run_steps

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS, WRAPPERS, find_method, parse_settings
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.compose import Wrapper, composed, joined_settings
from ssgd_analysis.methods.when import When

COMPOSED = ["s-sgd+ema", "sam+swa", "s-sgd+lookahead", "sgd+ema+lookahead", "looksam+lookahead+ema"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s-sgd+em", "unknown wrapper 'em': did you mean 'ema'"),
        ("s-sgd+", "unknown wrapper ''"),
        ("+ema", "unknown method ''"),
        ("s-sdg+ema", "unknown method 's-sdg': did you mean 's-sgd'"),
        ("ema+sam", "method 'ema+sam': only wrappers can follow"),
        ("sgd+ema+ema", "method 'sgd+ema+ema' names a wrapper twice"),
        ("ema+ema", "method 'ema+ema' names a wrapper twice"),
        ("sgd+ema+swa", "EMA and SWA both average the weights: use only one"),
        (
            "anti-pgd+lookahead",
            "Lookahead cannot wrap AntiPGD: it would move weights that still carry",
        ),
        ("anti-pgd+ema+lookahead", "Lookahead cannot wrap AntiPGD"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_words(name, words):
    with pytest.raises(InputError) as caught:
        find_method(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_the_same_name_collide():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(MethodSettings):
        rho: float = setting(1.0, "another radius")

    class Other(Wrapper):
        pass

    Other.Settings = Settings
    with pytest.raises(InputError, match="SAM and Other both have a setting 'rho'"):
        composed(METHODS["sam"], [Other])


def test_no_two_parts_of_the_table_collide():
    for name in METHODS.keys() - WRAPPERS.keys():
        joined_settings([METHODS[name], *WRAPPERS.values()])


@pytest.mark.parametrize("name", COMPOSED)
def test_settings_stand_side_by_side_in_the_order_of_the_parts(name):
    parts = [METHODS[name.split("+")[0]], *(WRAPPERS[part] for part in name.split("+")[1:])]
    expected = [field.name for part in parts for field in dataclasses.fields(part.Settings)]
    found = find_method(name)
    assert [field.name for field in dataclasses.fields(found.Settings)] == expected
    assert found.Settings() == found.Settings(
        **{k: v for part in parts for k, v in dataclasses.asdict(part.Settings()).items()}
    )


def test_settings_are_checked_as_those_of_the_parts():
    method = find_method("s-sgd+ema")
    found = parse_settings("s-sgd+ema", method, ["ema_decay=0.99", "noise_scale=0.2"])
    assert (found.ema_decay, found.noise_scale) == (0.99, 0.2)
    for wrong, words in [
        ("ema_decay=1.5", "ema_decay=1.5 should be at most 1"),
        ("noise_scale=-1", "should be at least 0"),
        ("swa_lr=1", "swa_lr"),
    ]:
        with pytest.raises(InputError, match=words):
            parse_settings("s-sgd+ema", method, [wrong])


@pytest.mark.parametrize("name", COMPOSED)
def test_passes_add_up(name):
    inside = READINGS[name.split("+")[0]].passes
    method = make_method(name, network())
    assert method.passes_per_step(method.settings) == inside  # averages cost none
    run_steps(method, 30, total=30)
    assert method.passes.gradients == pytest.approx(30 * inside, rel=1e-5)  # kept to six digits


def test_a_wrappers_own_passes_are_added():
    class Costly(Wrapper):
        """One pass more."""

        @classmethod
        def passes_per_step(cls, settings):
            return 1

    method = composed(METHODS["s-sgd"], [Costly])
    assert method.passes_per_step(method.Settings()) == 3
    assert method.minibatches(method.Settings()) == METHODS["s-sgd"].minibatches(method.Settings())


def test_a_wrapper_alone_is_around_sgd():
    alone, around = network(), network()
    for model, name in ((alone, "lookahead"), (around, "sgd+lookahead")):
        run_steps(make_method(name, model), 7)
    assert bits(alone) == bits(around)
    assert METHODS["ema"].summary() == WRAPPERS["ema"].summary()


@pytest.mark.parametrize("name", ["s-sgd+ema", "sam+swa"])
def test_an_average_leaves_the_training_alone(name):
    """Up to the end, where it gives out other weights; and may be looked at before."""
    model, plain = network(), network()
    settings = {"swa_lr": 0.0, "swa_start": 0.0} if "swa" in name else {}
    method = make_method(name, model, **settings)
    run_steps(method, 6)
    run_steps(make_method(name.split("+")[0], plain), 6)
    assert bits(model) == bits(plain)
    state = repr(method.state_dict())
    method.finish([minibatch(0)])
    given = bits(model)
    assert given != bits(plain)
    assert repr(method.state_dict()) == state
    method.finish([minibatch(0)])  # once more: the same
    assert bits(model) == given


def _fast_weights(steps: int) -> list[list[torch.Tensor]]:
    """Weights after each of SGD's steps with Lookahead of k = 2."""
    model = network()
    method, seen = make_method("lookahead", model, lookahead_k=2), []
    for number in range(steps):
        method.step(minibatch(number), When(step=number, fraction_done=number / 10))
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
    return seen


@pytest.mark.parametrize("name", ["sgd+ema+lookahead", "sgd+lookahead+ema"])
def test_an_average_is_given_out_in_whichever_order(name):
    """Written after Lookahead it sees the weights after each slow step, else those before."""
    model = network()
    run = make_method(name, model, lookahead_k=2, ema_decay=1.0)  # the plain mean
    run_steps(run, 3)
    run.finish([])
    first, second, third = _fast_weights(3)
    if name == "sgd+ema+lookahead":  # φ₂ = ½ (w₀ + w), so the weights before were 2 φ₂ − w₀
        start = [parameter.detach() for parameter in network().parameters()]
        second = [2 * slow - old for slow, old in zip(second, start, strict=True)]
    for found, *parts in zip(model.parameters(), first, second, third, strict=True):
        # float64, a dozen roundings
        torch.testing.assert_close(found.detach(), sum(parts) / 3, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", COMPOSED)
def test_resumed_from_its_state_it_goes_on_bit_for_bit(name):
    settings = {"lookahead_k": 3} if "lookahead" in name else {}
    settings |= {"swa_start": 0.3} if "swa" in name else {}
    model, other = network(), network(seed=1)
    method = make_method(name, model, seed=2, **settings)
    run_steps(method, 4)
    again = make_method(name, other, seed=2, **settings)
    other.load_state_dict(model.state_dict())
    again.passes.optimizer.load_state_dict(copy.deepcopy(method.passes.optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    for each in (method, again):
        for number in range(4, 9):
            each.step(minibatch(number), When(step=number, fraction_done=number / 10))
    assert bits(model) == bits(other)
    for each in (method, again):
        each.finish([])
    assert bits(model) == bits(other)
