"""How a pass is made: micro-batches, memory format, loss scale; and what an update clips."""

import copy

import pytest
import torch
from readings.base import Still, bits, make_method, minibatch, network
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS, Passes, When
from ssgd_analysis.methods.passes import LossScale, Overflow
from ssgd_analysis.methods.when import START
from ssgd_analysis.models import load_loss


def _passes(model: nn.Module, optimizer=None, **options) -> Passes:
    base = optimizer or Still(model.parameters())
    return Passes(model, load_loss("cross_entropy"), base, batch_size=7, **options)


def _slopes(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_micro_batches_are_the_minibatch(count):
    """Seven examples in parts that differ by one at most, at a share, beside what was there."""
    found, expected = network(), network()
    whole, parts = _passes(expected), _passes(found, accumulate=count)
    seen = []
    found.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for passes in (whole, parts):
        passes.backward(minibatch(1, 7))
    seen.clear()
    losses = [passes.backward(minibatch(0, 7), share=0.25) for passes in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-14)
    for a, b in zip(_slopes(found), _slopes(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-16)  # float64 sums in another order
    assert len(seen) == min(count, 7)
    assert sum(seen) == 7
    assert max(seen) - min(seen) <= 1
    assert parts.gradients == 2  # micro-batches are one pass together


def test_batchnorm_sees_micro_batches():
    """As ghost batches: by hand, the running mean after two halves."""
    layer = nn.BatchNorm1d(4)
    model = nn.Sequential(layer, nn.Linear(4, 3)).double()
    inputs, targets = minibatch(0, 6)
    _passes(model, accumulate=2).backward((inputs, targets))
    first, second = inputs[:3].mean(0), inputs[3:].mean(0)
    torch.testing.assert_close(layer.running_mean, 0.9 * 0.1 * first + 0.1 * second)


def test_ghost_batches_are_hoffers():
    """Each ghost batch by its own statistics; the running mean moves once for each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    plain = copy.deepcopy(model)
    inputs, targets = minibatch(0, 7)  # three do not divide seven: parts of four and three
    method = make_method("sgd", model, Still(model.parameters()), ghost_batch=3)
    loss = method.gradient((inputs, targets), START)
    parts = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    losses = [nn.functional.cross_entropy(plain(x), y) for x, y in parts]
    expected = (4 * losses[0] + 3 * losses[1]) / 7
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    for a, b in zip(_slopes(model), _slopes(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(model[0].running_mean, plain[0].running_mean)
    assert method.passes.gradients == pytest.approx(7 / 6, rel=1e-6)  # seven, of minibatches of six


def test_ghost_batches_of_one_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        METHODS["sgd"].Settings(ghost_batch=1)


@pytest.mark.parametrize("norm", [1e-3, 1e3])
def test_clipping_is_torchs(norm):
    """At the norm the base optimizer steps with: after it, not before each pass."""
    model, other = network(), network()
    for net in (model, other):
        options = {"lr": 1.0, "momentum": 0.5}
        base = torch.optim.SGD(net.parameters(), **options)
        passes = _passes(net, base, clip=norm if net is model else None)
        passes.backward(minibatch(0, 7))
        if net is other:
            nn.utils.clip_grad_norm_(net.parameters(), norm)
        passes.update()
    assert bits(model) == bits(other)
    assert bits(model) != bits(network())


def test_a_fused_step_is_the_plain_one_whatever_the_gradients_strides():
    """torch's fused kernels walk through memory; a gradient in another order is put right."""
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last)
        slope = torch.randn(5, 3, 2, 2)  # contiguous
        options = {"lr": 0.1, "momentum": 0.9, "fused": fused}
        passes = _passes(conv, torch.optim.SGD(conv.parameters(), **options))
        for _ in range(2):
            conv.weight.grad = slope.clone()
            passes.update()
        ends.append(conv.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-7)


def test_the_scale_follows_gradscalers_rule():
    """A scripted sequence of overflows, beside torch's own class."""
    ours = LossScale(interval=3)
    torchs = torch.amp.GradScaler("cpu", growth_interval=3)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    found, expected = [], []
    for bad in map(int, "0001001110000000010001"):
        weight.grad = torch.full((1,), float("inf") if bad else 1.0)
        torchs.scale(torch.ones(()))  # makes its state
        torchs.step(optimizer)
        torchs.update()
        (ours.shrink if bad else ours.keep)()
        found.append(ours.value)
        expected.append(torchs.get_scale())
    assert found == expected
    assert max(found) > 2**16 > min(found)


def test_float16_gradients_do_not_show_the_scale():
    """Those of a pass are float32's to float16's rounding, and two passes add up."""
    half, whole = network().float(), network().float()
    both = [_passes(half, autocast=torch.float16), _passes(whole)]
    inputs, targets = minibatch(0, 7)
    for passes in both:
        for share in (1.0, 0.5):
            passes.backward((inputs.float(), targets), share=share)
    for a, b in zip(_slopes(half), _slopes(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.002)  # eps of float16: 0.001
        assert not torch.equal(a, b)


@pytest.mark.parametrize("name", ["sgd", "s-sgd", "ema", "sam"])
def test_an_overflow_skips_the_step(name):
    """All but the scale is as before; then training goes on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    method = make_method(name, model)
    method.passes.autocast, method.passes.scale = torch.float16, LossScale()
    inputs, targets = minibatch(0)
    inputs = inputs.float()
    for step in range(2):
        method.attempt((inputs, targets), When(step=step, fraction_done=step / 10))
    before = copy.deepcopy(
        (model.state_dict(), method.passes.optimizer.state_dict(), method.state_dict())
    )
    method.passes.scale.value = 2.0**40  # float16 ends at 65504
    loss = method.attempt((inputs, targets), When(step=2, fraction_done=0.2))
    after = (model.state_dict(), method.passes.optimizer.state_dict(), method.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert 0 < loss < 10
    assert (method.passes.scale.value, method.passes.scale.good) == (2.0**39, 0)
    method.passes.scale.value = 2.0**10
    method.attempt((inputs, targets), When(step=2, fraction_done=0.2))
    assert any(
        (a != b).any() for a, b in zip(model.state_dict().values(), before[0].values(), strict=True)
    )
    assert method.passes.scale.good == 1


def test_gradients_that_no_scale_helps_end_the_training():
    model = network().float()
    method = make_method("sgd", model)
    method.passes.autocast, method.passes.scale = torch.float16, LossScale(2.0**-24)
    model[2].weight.register_hook(lambda slope: slope * float("inf"))
    inputs, targets = minibatch(0)
    assert method.attempt((inputs.float(), targets), START) == float("inf")


def test_overflow_is_told_from_a_pass():
    model = network().float()
    passes = _passes(model, autocast=torch.float16)
    passes.scale = LossScale(2.0**60)
    inputs, targets = minibatch(0, 7)
    with pytest.raises(Overflow):
        passes.backward((inputs.float(), targets))


def test_an_operation_without_float16_is_named():
    class Lacking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("\"thing_cpu\" not implemented for 'Half'")
            return self.layer(inputs)

    inputs, targets = minibatch(0, 7)
    with pytest.raises(InputError, match=r"thing_cpu.*bf16"):
        _passes(Lacking(), autocast=torch.float16).backward((inputs.float(), targets))


def test_the_loss_scale_is_kept_for_resume():
    passes, other = (_passes(network(), autocast=torch.float16) for _ in range(2))
    passes.scale.shrink()
    passes.scale.keep()
    other.load_state_dict(passes.state_dict())
    assert (other.scale.value, other.scale.good) == (2.0**15, 1)
    assert _passes(network()).state_dict() == {"examples": 0.0}


def test_channels_last_gives_images_in_that_format():
    seen = []
    conv = nn.Conv2d(3, 2, 2)
    conv.register_forward_pre_hook(lambda _, x: seen.append(x[0].stride()))
    _passes(conv, channels_last=True).forward(torch.zeros(2, 3, 4, 4))
    assert seen == [torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last).stride()]


def test_a_model_that_cannot_be_compiled_is_told(monkeypatch):
    def broken(model):
        def forward(inputs):
            raise RuntimeError("no graph\nlong story")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"--compile.*no graph$"):
        _passes(network(), compiled=True).backward(minibatch(0, 7))
