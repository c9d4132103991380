"""``SSGD`` with every option of S-SGD, around other optimizers, in others' training loops."""

import copy
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_optimizer
import torch
from readings.base import bits, make_method, minibatch, network, run_steps
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import SSGD
from ssgd_analysis.methods.when import When

BASE = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.05}


def _closure(
    model: nn.Module, optimizer: torch.optim.Optimizer, number: int, parts: int = 1
) -> Callable[[], Tensor]:
    inputs, targets = minibatch(number)
    dtype = next(model.parameters()).dtype

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        cut = inputs.to(dtype).split(6 // parts), targets.split(6 // parts)
        for few, theirs in zip(*cut, strict=True):
            value = nn.functional.cross_entropy(model(few), theirs) / parts
            value.backward()
            total = total + value.detach()
        return total

    return closure


def _run(model: nn.Module, optimizer: SSGD, steps: int, parts: int = 1) -> list[float]:
    return [
        optimizer.step(_closure(model, optimizer, number, parts)).item() for number in range(steps)
    ]


def _same(model: nn.Module, other: nn.Module, rtol: float = 1e-12) -> None:
    for found, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize(
    "settings",
    [
        {"pairs": 3},
        {"noise_law": "laplace"},
        {"noise_per": "layer", "pairs": 2},
        {"noise_per": "sample", "noise_law": "gaussian"},
        {"exclude": "0.*"},
        {"exclude": "0.weight"},
        {"exclude": "1d, 2.*"},
    ],
)
def test_is_the_method_on_the_same_seeds(settings):
    model, other = network(), network()
    losses = _run(model, SSGD(model.parameters(), seed=3, model=model, **settings, **BASE), 4)
    expected = run_steps(make_method("s-sgd", other, seed=3, **settings), 4)
    assert losses == pytest.approx(expected, rel=1e-12)
    _same(model, other)


def test_layers_are_modules_where_names_are_known_and_parameters_otherwise():
    def moved(params: object, **options) -> set[tuple[bool, ...]]:
        model = network()
        optimizer = SSGD(params(model), noise_per="layer", exclude="none", lr=0.0, **options)
        clean = [p.detach().clone() for p in model.parameters()]
        seen = set()
        model.register_forward_pre_hook(
            lambda *_: seen.add(
                tuple(not torch.equal(p, c) for p, c in zip(model.parameters(), clean, strict=True))
            )
        )
        _run(model, optimizer, 30)
        return seen

    by_module = {(True, True, False, False), (False, False, True, True)}
    one_each = {tuple(i == j for j in range(4)) for i in range(4)}
    assert moved(lambda model: model.named_parameters()) == by_module
    assert moved(lambda model: model.parameters()) == one_each


def test_micro_batches_in_the_closure_are_one_step():
    model, other = network(), network()
    _run(model, SSGD(model.parameters(), **BASE), 4, parts=3)
    _run(other, SSGD(other.parameters(), **BASE), 4)
    _same(model, other)


def test_where_no_group_has_noise_the_closure_is_called_once():
    model, calls = network(), []
    optimizer = SSGD(model.parameters(), pairs=2, noise_scale=0.0, **BASE)
    inner = _closure(model, optimizer, 0)
    optimizer.step(lambda: calls.append(1) or inner())
    optimizer.param_groups[0]["noise_scale"] = 0.1
    optimizer.step(lambda: calls.append(1) or inner())
    assert len(calls) == 1 + 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": 0}, "pairs=0"),
        ({"noise_per": "sample"}, "needs the model"),
        ({"noise_per": "steps"}, "did you mean 'step'"),
        ({"noise_across_ranks": "diferent"}, "did you mean 'different'"),
        ({"exclude": "type:Linear"}, "needs the model"),
        ({"exclude": "1d,body.*", "model": "given"}, "no parameter fits 'body"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, words):
    model = network()
    if "model" in options:
        options = {**options, "model": model}
    with pytest.raises(InputError, match=words):
        SSGD(model.parameters(), lr=0.1, **options)


# Around other optimizers

BASES = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "foreach": True}),
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.RMSprop, {"lr": 0.01}),
    (torch.optim.Adagrad, {"lr": 0.01}),
    (torch.optim.NAdam, {"lr": 0.01}),
    (pytorch_optimizer.Lion, {"lr": 0.001}),
    (pytorch_optimizer.AdaBelief, {"lr": 0.01}),
    (pytorch_optimizer.Lamb, {"lr": 0.01}),
    (pytorch_optimizer.LARS, {"lr": 0.1}),
]


@pytest.mark.parametrize(("base", "options"), BASES)
def test_around_any_optimizer_it_is_the_method(base, options):
    model, other = network(), network()
    optimizer = SSGD(model.parameters(), base, **options)
    method = make_method("s-sgd", other, base(other.parameters(), **options))
    before = bits(model)
    for number in range(4):
        optimizer.step(_closure(model, optimizer, number))
        method.step(minibatch(number), When(step=number))
    assert bits(model) != before
    _same(model, other, rtol=1e-9)  # AdaBelief squares differences of nearly equal gradients
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step(_closure(model, optimizer, 4))


# Precision


def test_bfloat16_in_the_closure():
    model = network().float()
    optimizer = SSGD(model.parameters(), **BASE)
    inner = _closure(model, optimizer, 0)

    def closure() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return inner()

    plain = network().float()
    _run(plain, SSGD(plain.parameters(), **BASE), 1)
    optimizer.step(closure)
    assert bits(model) != bits(plain)
    _same(model, plain, rtol=2e-2)  # eight bits of mantissa


def _scaled(model: nn.Module, optimizer: SSGD, scaler: torch.amp.GradScaler, spoilt: int = 0):
    inputs, targets = minibatch(0)
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            value = nn.functional.cross_entropy(model(inputs.float()), targets)
        scaler.scale(value).backward()
        if len(calls) == spoilt:
            model[0].weight.grad[0, 0] = torch.inf
        return value

    return closure


def test_float16_with_a_scaler_is_the_step_without():
    model, plain = network().float(), network().float()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = SSGD(model.parameters(), **BASE)
    optimizer.step(_scaled(model, optimizer, scaler), scaler=scaler)
    scaler.update()
    _run(plain, SSGD(plain.parameters(), **BASE), 1)
    _same(model, plain, rtol=5e-3)  # eleven bits of mantissa
    assert scaler.get_scale() == 2.0**10


@pytest.mark.parametrize("spoilt", [1, 2])
def test_an_infinity_at_either_point_skips_the_step(spoilt):
    model = network().float()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = SSGD(model.parameters(), **BASE)
    before = bits(model)
    optimizer.step(_scaled(model, optimizer, scaler, spoilt), scaler=scaler)
    scaler.update()
    assert bits(model) == before
    assert not optimizer.state  # the base optimizer took no step
    assert scaler.get_scale() == 2.0**9
    optimizer.step(_scaled(model, optimizer, scaler), scaler=scaler)
    assert bits(model) != before


# Memory order


def test_a_channels_last_model_stays_one():
    def made() -> nn.Sequential:
        torch.manual_seed(0)
        conv = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*conv, nn.Linear(32, 3))

    model, plain = made().to(memory_format=torch.channels_last), made()
    inputs, targets = torch.randn(6, 3, 4, 4), minibatch(0)[1]
    for each in (model, plain):
        optimizer = SSGD(each.parameters(), model=each, **BASE)
        form = torch.channels_last if each is model else torch.contiguous_format
        given = inputs.to(memory_format=form)

        def closure(each=each, optimizer=optimizer, given=given) -> Tensor:
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(each(given), targets)
            value.backward()
            return value

        for _ in range(3):
            optimizer.step(closure)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    _same(model, plain, rtol=1e-3)  # float32, other kernels


# Compiled models and several processes


@pytest.mark.slow
def test_a_compiled_model_takes_the_same_steps():
    model, plain = network(), network()
    compiled = torch.compile(model)
    optimizer = SSGD(compiled.named_parameters(), exclude="1d,2.*", model=compiled, **BASE)
    other = SSGD(plain.named_parameters(), exclude="1d,2.*", **BASE)
    _run(compiled, optimizer, 3)
    _run(plain, other, 3)
    _same(model, plain, rtol=1e-10)
    with pytest.raises(InputError, match="does not work on a compiled model"):
        SSGD(compiled.parameters(), noise_per="sample", model=compiled, **BASE)


WORKER = """
import sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, sys.argv[4])
from readings.base import minibatch, network
from ssgd_analysis.methods import SSGD
rank, port, ranks = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
model = network()
wrapped = DistributedDataParallel(model)
optimizer = SSGD(wrapped.named_parameters(), exclude="1d,2.*" if ranks == "spared" else "1d",
                 noise_across_ranks="different" if ranks == "different" else "same",
                 lr=0.2, momentum=0.9, weight_decay=0.05)
for number in range(3):
    inputs, targets = (part[3 * rank : 3 * rank + 3] for part in minibatch(number))
    def closure():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(wrapped(inputs), targets)
        value.backward()
        return value
    optimizer.step(closure)
torch.save([p.detach() for p in model.parameters()], sys.argv[5])
distributed.destroy_process_group()
"""


def _over_two(ranks: str, folder: Path) -> list[list[Tensor]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tests = str(Path(__file__).parents[1])
    files = [folder / f"{rank}.pt" for rank in (0, 1)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(port), ranks, tests, str(files[rank])],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return [torch.load(file) for file in files]


def _different(weights: list[Tensor], number: int) -> list[Tensor]:
    """The mean over two ranks, each at its own noise with its own half of the minibatch."""
    found = []
    for rank in (0, 1):
        model = network()
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), weights, strict=True):
                parameter.copy_(value)
        method = make_method("s-sgd", model, noise_across_ranks="different")
        method.seed_of = lambda step, draw, method=method, rank=rank: _seed(step, draw, rank)
        inputs, targets = (part[3 * rank : 3 * rank + 3] for part in minibatch(number))
        method.gradient((inputs, targets), When(step=number))
        found.append([p.grad for p in model.parameters()])
    return [(a + b) / 2 for a, b in zip(*found, strict=True)]


def _seed(step: int, draw: int, rank: int) -> int:
    from ssgd_analysis import seeds

    return seeds.derive(0, "weight noise", step, draw, *([rank] if rank else []))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["same", "different", "spared"])
def test_two_processes(ranks, tmp_path):
    first, second = _over_two(ranks, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    alone = network()
    if ranks == "different":
        base = torch.optim.SGD(alone.parameters(), **BASE)
        for number in range(3):
            slopes = _different([p.detach() for p in alone.parameters()], number)
            for parameter, slope in zip(alone.parameters(), slopes, strict=True):
                parameter.grad = slope
            base.step()
    else:
        exclude = "1d,2.*" if ranks == "spared" else "1d"
        _run(alone, SSGD(alone.named_parameters(), exclude=exclude, **BASE), 3)
    for found, wanted in zip(first, alone.parameters(), strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-10, atol=1e-12)
