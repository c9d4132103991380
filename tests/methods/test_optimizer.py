"""``SSGD``: S-SGD as a plain torch optimizer in a user's own loop."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from readings.base import (
    HeavyBall,
    Step,
    Still,
    Weights,
    bits,
    gradient,
    loss,
    make_method,
    mean,
    minibatch,
    moved,
    network,
    noise,
    run_steps,
)
from readings.core import s_sgd
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS, SSGD
from ssgd_analysis.methods.when import START

BASE = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.05}
# float64 and a few steps of a few dozen roundings each
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def _closure(
    model: nn.Module, optimizer: torch.optim.Optimizer, number: int, zero: Callable | None = None
) -> Callable[[], Tensor]:
    inputs, targets = minibatch(number)

    def closure() -> Tensor:
        (zero or optimizer.zero_grad)()
        value = nn.functional.cross_entropy(model(inputs), targets)
        value.backward()
        return value

    return closure


def _run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    numbers: range,
    after: Callable[[], object] = lambda: None,
) -> list[float]:
    losses = []
    for number in numbers:
        losses.append(optimizer.step(_closure(model, optimizer, number)).item())
        after()
    return losses


def _weights(model: nn.Module) -> Weights:
    return [parameter.detach().clone() for parameter in model.parameters()]


def _step(number: int, seed: int = 0, **settings: Any) -> Step:
    return Step(METHODS["s-sgd"].Settings(**settings), seed=seed, number=number, elapsed=0.0)


def _direction(weights: Weights, number: int, **settings: Any) -> Weights:
    return s_sgd(weights, *minibatch(number), _step(number, **settings))


# What it computes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"noise_scale": 0.4},
        {"noise_law": "gaussian", "noise_relative_to": "layer"},
        {"noise_law": "sphere"},
        {"exclude": "none"},
    ],
)
def test_is_the_method_s_sgd_on_the_same_seeds(settings):
    model, other = network(), network()
    optimizer = SSGD(model.parameters(), seed=3, **settings, **BASE)
    losses = _run(model, optimizer, range(5))
    expected = run_steps(make_method("s-sgd", other, seed=3, **settings), 5)
    assert losses == pytest.approx(expected, rel=1e-12)
    for found, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_matches_the_slow_reading_of_the_equation():
    model = network()
    weights, base = _weights(model), HeavyBall(**BASE)
    for number in range(5):
        weights = base.update(weights, _direction(weights, number))
    _run(model, SSGD(model.parameters(), **BASE), range(5))
    for found, expected in zip(_weights(model), weights, strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_returns_the_mean_of_the_two_losses():
    model = network()
    weights = _weights(model)
    n = noise(weights, _step(0), 0)
    points = [float(loss(moved(weights, n, sign), *minibatch(0))) for sign in (1, -1)]
    (found,) = _run(model, SSGD(model.parameters(), lr=0.1), range(1))
    assert found == pytest.approx(sum(points) / 2, rel=1e-12)


def test_zero_noise_is_the_base_optimizer_bit_for_bit():
    model, plain = network(), network()
    _run(model, SSGD(model.parameters(), noise_scale=0.0, **BASE), range(5))
    _run(plain, torch.optim.SGD(plain.parameters(), **BASE), range(5))
    assert bits(model) == bits(plain)


def test_weights_are_the_exact_bits_from_before_where_the_base_does_nothing():
    model = network().float()
    with torch.no_grad():
        model[0].weight[0, :2] = torch.tensor([-0.0, 1e-42])
    before = bits(model)
    optimizer = SSGD(model.parameters(), Still)
    inputs = minibatch(0)[0].float()
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(bits(model))
        value = model(inputs).square().mean()
        value.backward()
        return value

    optimizer.step(closure)
    assert bits(model) == before
    assert before not in seen
    assert seen[0] != seen[1]


BASES = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam"]


@pytest.mark.parametrize("name", [*BASES, "ASGD", "Rprop"])
def test_any_base_optimizer_steps_with_the_mean_gradient(name):
    make = getattr(torch.optim, name)
    model, other = network(), network()
    plain = make(other.parameters(), lr=0.01)
    optimizer = SSGD(model.parameters(), make, lr=0.01)
    for number in range(3):
        direction = _direction(_weights(other), number)
        for parameter, slope in zip(other.parameters(), direction, strict=True):
            parameter.grad = slope
        plain.step()
        _run(model, optimizer, range(number, number + 1))
    for found, expected in zip(model.parameters(), other.parameters(), strict=True):
        # optimizers divide by the size of a gradient: roundings of 1e-16 in one of 1e-4 grow
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# Schedulers


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=5),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=6),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    ],
    ids=["step", "cosine", "one-cycle", "lambda"],
)
def test_learning_rate_schedulers_reach_the_base(make):
    """Without noise it must follow torch's own SGD under the same scheduler."""
    model, plain = network(), network()
    optimizer = SSGD(model.parameters(), noise_scale=0.0, **BASE)
    other = torch.optim.SGD(plain.parameters(), **BASE)
    schedulers = make(optimizer), make(other)
    for number in range(5):
        _run(model, optimizer, range(number, number + 1), schedulers[0].step)
        _run(plain, other, range(number, number + 1), schedulers[1].step)
        assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    assert bits(model) == bits(plain)


def test_a_scheduler_that_follows_the_loss():
    model = network()
    optimizer = SSGD(model.parameters(), lr=0.2)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.1)
    scheduler.step(1.0)
    scheduler.step(2.0)
    assert optimizer.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


# Parameter groups


def _relative_moves(model: nn.Module, optimizer: SSGD) -> list[float]:
    """max |w ± n − w| / rms(w) of each parameter while the closure runs."""
    clean, found = _weights(model), []
    inner = _closure(model, optimizer, 0)

    def closure() -> Tensor:
        found[:] = [
            float(((p - w).abs() / w.square().mean(dim=-1, keepdim=True).sqrt()).detach().max())
            for p, w in zip(model.parameters(), clean, strict=True)
        ]
        return inner()

    optimizer.step(closure)
    return found


def test_groups_have_their_own_noise_scale_and_options():
    model = network()
    optimizer = SSGD(
        [
            {"params": model[0].parameters(), "noise_scale": 0.0},
            {"params": model[2].parameters(), "lr": 0.0},
        ],
        noise_scale=0.3,
        lr=0.1,
    )
    before = _weights(model)
    assert _relative_moves(model, optimizer) == pytest.approx([0, 0, 0.3, 0], rel=1e-12)
    after = _weights(model)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[2], before[2])


def test_a_noise_scale_changed_in_its_group_counts():
    model = network()
    optimizer = SSGD(model.parameters(), noise_scale=0.3, lr=0.1)
    optimizer.param_groups[0]["noise_scale"] = 0.05
    assert _relative_moves(model, optimizer) == pytest.approx([0.05, 0, 0.05, 0], rel=1e-12)


def test_named_parameters_can_be_spared_by_pattern():
    model = network()
    optimizer = SSGD(model.named_parameters(), exclude="0.*,*.bias", noise_scale=0.2, lr=0.1)
    assert _relative_moves(model, optimizer) == pytest.approx([0, 0, 0.2, 0], rel=1e-12)


def test_named_groups_can_be_spared_by_pattern():
    model = network()
    groups = [{"params": list(layer.named_parameters(prefix=f"layer{i}"))} for i, layer in
              ((0, model[0]), (2, model[2]))]  # fmt: skip
    optimizer = SSGD(groups, exclude="layer2.*", noise_scale=0.2, lr=0.1)
    assert _relative_moves(model, optimizer) == pytest.approx([0.2, 0.2, 0, 0], rel=1e-12)


def test_patterns_without_names_are_refused():
    """Nothing could match: what the user wants spared would silently get noise."""
    with pytest.raises(InputError, match="named_parameters"):
        SSGD(network().parameters(), exclude="0.*", lr=0.1)


def test_a_group_added_later_is_trained_with_noise():
    model = network()
    optimizer = SSGD(model[2].parameters(), noise_scale=0.2, **BASE)
    _run(model, optimizer, range(2))
    before = bits(model[0])
    optimizer.add_param_group({"params": list(model[0].parameters()), "noise_scale": 0.1})
    assert optimizer.param_groups[1]["lr"] == BASE["lr"]
    assert optimizer.param_groups[1]["momentum"] == BASE["momentum"]
    assert _relative_moves(model, optimizer) == pytest.approx([0.1, 0, 0.2, 0], rel=1e-12)
    assert all(a != b for a, b in zip(bits(model[0]), before, strict=True))
    assert len(optimizer.state) == 4  # momentum of every parameter, in the shared state


def test_a_group_added_later_is_checked():
    model = network()
    optimizer = SSGD(model[2].parameters(), lr=0.1)
    with pytest.raises(InputError, match="noise_scale -1"):
        optimizer.add_param_group({"params": list(model[0].parameters()), "noise_scale": -1})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": list(model[0].parameters())})  # the next try may do
    assert len(optimizer.param_groups) == 2


# State


def _saved(state: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file opened weights-only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_a_loaded_state_continues_bit_for_bit(base):
    options = BASE if base is torch.optim.SGD else {"lr": 0.01}

    def make(model: nn.Module) -> tuple[SSGD, Any]:
        optimizer = SSGD(model.named_parameters(), base, seed=2, **options)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    whole = network()
    optimizer, scheduler = make(whole)
    _run(whole, optimizer, range(3), scheduler.step)
    kept = _saved([whole.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
    _run(whole, optimizer, range(3, 6), scheduler.step)

    resumed = network(seed=9)
    optimizer, scheduler = make(resumed)
    for part, state in zip((resumed, optimizer, scheduler), kept, strict=True):
        part.load_state_dict(state)
    _run(resumed, optimizer, range(3, 6), scheduler.step)
    assert bits(resumed) == bits(whole)


def test_state_and_groups_are_shared_with_the_base_after_loading():
    model = network()
    optimizer = SSGD(model.parameters(), **BASE)
    _run(model, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.base_optimizer.state is optimizer.state
    assert optimizer.base_optimizer.param_groups is optimizer.param_groups


def test_each_step_draws_other_noise_and_the_seed_fixes_it():
    def trained(seed: int) -> list[bytes]:
        model = network()
        _run(model, SSGD(model.parameters(), seed=seed, lr=0.1), range(3))
        return bits(model)

    assert trained(1) == trained(1) != trained(2)


def test_a_copy_is_an_optimizer_too():
    """torch's optimizers can be deep-copied together with their model."""
    model = network()
    optimizer = SSGD(model.parameters(), **BASE)
    _run(model, optimizer, range(2))
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    _run(model, optimizer, range(2, 4))
    _run(twin, twin_optimizer, range(2, 4))
    assert bits(twin) == bits(model)


# Closures


def test_gradients_can_be_clipped_in_the_closure():
    model = network()
    weights = _weights(model)
    n = noise(weights, _step(0), 0)

    def clipped(sign: int) -> Weights:
        slope = gradient(moved(weights, n, sign), *minibatch(0))
        norm = torch.cat([part.flatten() for part in slope]).norm()
        assert norm > 0.01
        return [part * 0.01 / (norm + 1e-6) for part in slope]  # torch adds 1e-6

    optimizer = SSGD(model.parameters(), lr=1.0)
    inner = _closure(model, optimizer, 0)

    def closure() -> Tensor:
        value = inner()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        return value

    optimizer.step(closure)
    expected = moved(weights, mean(clipped(1), clipped(-1)), -1)
    for found, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted, **CLOSE)


@pytest.mark.parametrize("failing_call", [1, 2])
def test_an_exception_in_the_closure_gives_the_weights_back(failing_call):
    model = network()
    optimizer = SSGD(model.parameters(), **BASE)
    _run(model, optimizer, range(2))
    before, calls = bits(model), []
    inner = _closure(model, optimizer, 2)

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == failing_call:
            raise KeyboardInterrupt
        return inner()

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert bits(model) == before
    # and the step can be made again as if nothing had happened
    _run(model, optimizer, range(2, 3))
    other = network()
    _run(other, SSGD(other.parameters(), **BASE), range(3))
    assert bits(model) == bits(other)


def test_no_closure_is_a_clear_error():
    optimizer = SSGD(network().parameters(), lr=0.1)
    with pytest.raises(InputError, match="needs a closure"):
        optimizer.step()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_however_the_closure_zeroes_the_gradients(set_to_none):
    model, other = network(), network()
    optimizer = SSGD(model.parameters(), **BASE)
    for number in range(3):
        zero = lambda: model.zero_grad(set_to_none=set_to_none)  # noqa: E731
        optimizer.step(_closure(model, optimizer, number, zero))
    _run(other, SSGD(other.parameters(), **BASE), range(3))
    assert bits(model) == bits(other)


def test_gradients_left_over_from_elsewhere_do_not_leak_in():
    model, other = network(), network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    optimizer = SSGD(model.parameters(), lr=0.1)
    inputs, targets = minibatch(0)

    def closure() -> Tensor:
        value = nn.functional.cross_entropy(model(inputs), targets)
        value.backward()  # a closure that forgets to zero
        return value

    optimizer.step(closure)
    _run(other, SSGD(other.parameters(), lr=0.1), range(1))
    assert bits(model) == bits(other)


def test_a_closure_may_return_a_number():
    model = network()
    optimizer = SSGD(model.parameters(), lr=0.1)
    inner = _closure(model, optimizer, 0)
    assert float(optimizer.step(lambda: inner().item())) > 0


def test_unused_parameters_keep_their_weights_and_have_no_gradient():
    model = network()
    extra = nn.Parameter(torch.ones(3, 3, dtype=torch.float64))
    optimizer = SSGD([*model.parameters(), extra], **BASE)
    _run(model, optimizer, range(3))
    assert extra.grad is None
    assert torch.equal(extra, torch.ones(3, 3))  # no gradient, no weight decay: as torch has it


def test_a_parameter_used_in_one_pass_only_gets_half_its_gradient():
    model = network()
    extra = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = SSGD([*model.parameters(), extra], lr=1.0)
    inner, calls = _closure(model, optimizer, 0), []

    def closure() -> Tensor:
        value = inner()
        calls.append(1)
        if len(calls) == 1:
            extra.sum().backward()
        return value

    optimizer.step(closure)
    assert extra.tolist() == [-0.5, -0.5]


def test_frozen_parameters_are_left_alone():
    model = network()
    model[0].requires_grad_(False)
    before = bits(model[0])
    optimizer = SSGD(model.parameters(), **BASE)
    assert _relative_moves(model, optimizer)[:2] == [0, 0]
    assert bits(model[0]) == before


# BatchNorm


@pytest.mark.parametrize(
    ("options", "updates"),
    [
        ({"bn_stats": "first"}, 1),
        ({"bn_stats": "both"}, 2),
        ({"bn_stats": "frozen"}, 0),
        ({}, 1),
        (None, 2),  # without the model it cannot see BatchNorm
    ],
)
def test_batchnorm_statistics(options, updates):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    known = {} if options is None else {"model": model, **options}
    _run(model, SSGD(model.parameters(), lr=0.1, **known), range(1))
    assert model[1].num_batches_tracked == updates
    assert model[1].training


# What it refuses


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_scale": -0.1}, "noise_scale -0.1"),
        ({"noise_scale": float("nan")}, "noise_scale nan"),
        ({"noise_scale": float("inf")}, "noise_scale inf"),
        ({"noise_law": "binaries"}, "did you mean 'binary'"),
        ({"noise_relative_to": "filters"}, "did you mean 'filter'"),
        ({"bn_stats": "frist"}, "did you mean 'first'"),
        ({"bn_stats": "clean"}, "BatchNorm policy 'clean'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        SSGD(network().parameters(), lr=0.1, **options)


def test_refuses_unknown_options_of_the_base():
    with pytest.raises(TypeError, match="noise_size"):
        SSGD(network().parameters(), lr=0.1, noise_size=0.1)


def test_is_a_torch_optimizer():
    optimizer = SSGD(network().parameters(), lr=0.1)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert "noise_scale: 0.1" in repr(optimizer)
    assert "lr: 0.1" in repr(optimizer)


def test_a_copy_under_a_scheduler_steps_its_own_weights():
    import copy

    model = torch.nn.Linear(3, 1)
    optimizer = SSGD(model.parameters(), noise_scale=0.1, lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    twin, other = copy.deepcopy((optimizer, model))

    def closure():
        twin.zero_grad()
        loss = other(torch.ones(2, 3)).square().mean()
        loss.backward()
        return loss

    before = [other.weight.detach().clone(), model.weight.detach().clone()]
    twin.step(closure)
    assert not torch.equal(other.weight, before[0])
    assert torch.equal(model.weight, before[1])


@pytest.mark.parametrize("noise_scale", [0.0, 0.1])
def test_a_fused_base_takes_the_plain_steps_whatever_the_gradients_strides(noise_scale):
    """torch's fused kernels walk through memory; a gradient in another order is put right."""
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last)
        optimizer = SSGD(conv.parameters(), noise_scale=noise_scale, fused=fused, **BASE)
        slope = torch.randn(5, 3, 2, 2)  # contiguous

        def closure(conv=conv, slope=slope) -> Tensor:
            conv.weight.grad = slope.clone()
            return torch.zeros(())

        for _ in range(2):
            optimizer.step(closure)
        ends.append(conv.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-7)


def test_a_base_that_needs_a_closure_is_refused():
    with pytest.raises(InputError, match="LBFGS needs a closure itself"):
        SSGD(network().parameters(), torch.optim.LBFGS)


@pytest.mark.parametrize("name", ["s-sgd", "sam", "nso"])
def test_sparse_gradients_are_refused_in_one_line(name):
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
    method = make_method(name, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match="sparse gradients"):
        method.step((torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1])), START)


def test_parameters_that_are_all_spared_are_refused():
    with pytest.raises(InputError, match="exclude=1d leaves no parameter with noise"):
        SSGD([nn.Parameter(torch.zeros(3))], lr=0.1)
