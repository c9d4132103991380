"""A noise of its own for each example: against a loop over examples with explicit weights."""

import copy
import logging
import math

import pytest
import torch
from readings.base import Still, bits, make_method, minibatch, network, run_steps
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.per_sample import per_sample_noise, perturbable
from ssgd_analysis.methods.when import START
from ssgd_analysis.weights import Noise
from ssgd_analysis.weights.noise import random_signs

SCALE = 0.3


class Twice(nn.Module):
    """One layer that is called twice: an example's noise is the same in both calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(inputs)))))


def _nets() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(3)
    images, series = torch.randn(5, 4, 6, 6), torch.randn(5, 4, 9)
    grouped = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    around = nn.Conv2d(6, 3, 3, padding=1, padding_mode="circular", bias=False)
    nets = {
        "linear": (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(5, 4)),
        "tokens": (
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
            torch.randn(5, 2, 4),
        ),
        "conv2d": (nn.Sequential(grouped, nn.Tanh(), around), images),
        "conv1d": (nn.Sequential(nn.Conv1d(4, 70, 3, dilation=2), nn.Tanh()), series),
        "conv3d": (nn.Conv3d(4, 2, 2), torch.randn(5, 4, 3, 3, 3)),
        "shared": (Twice(), torch.randn(5, 4)),
    }
    return {name: (model.double(), inputs.double()) for name, (model, inputs) in nets.items()}


def _loss(outputs: Tensor) -> Tensor:
    return outputs.sin().flatten(1).sum(dim=1).square().mean()


def _own_weights(weight: Tensor, place: int, seed: int, sign: int, noise: Tensor, examples: int):
    """W + sign · ΔW ∘ r sᵀ for each example, by the documented stream of signs."""
    generator = seeds.generator(seed, "signs", place)
    groups = {6: 2}.get(len(weight), 1) if weight.ndim == 4 else 1
    outputs, inputs = len(weight), weight.shape[1] * groups
    for _ in range(examples):
        drawn = random_signs(64 * math.ceil((inputs + outputs) / 64), generator).double()
        s, r = drawn[:inputs], drawn[inputs : inputs + outputs]
        rows = []
        for channel in range(outputs):
            group = channel // (outputs // groups)
            seen = s[group * weight.shape[1] : (group + 1) * weight.shape[1]]
            rows.append(r[channel] * seen)
        signs = torch.stack(rows).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
        yield weight + sign * noise * signs


@pytest.mark.parametrize("name", ["linear", "tokens", "conv2d", "conv1d", "conv3d", "shared"])
@pytest.mark.parametrize("sign", [1, -1])
def test_is_a_loop_over_examples_with_weights_of_their_own(name, sign):
    model, inputs = _nets()[name]
    noise = Noise(law="gaussian", scale="filter")
    layers = perturbable(model, model.parameters())
    with per_sample_noise(model, layers, noise, [SCALE] * len(layers)) as move:
        move(7, sign)
        loss = _loss(model(inputs))
        loss.backward()
    found = [parameter.grad for parameter in model.parameters()]

    weights = [layer.weight.detach() for layer in layers]
    draws = noise.draw(weights, [SCALE] * len(weights), 7)
    owned = [
        list(_own_weights(w, place, 7, sign, draw, len(inputs)))
        for place, (w, draw) in enumerate(zip(weights, draws, strict=True))
    ]
    total, expected = 0.0, [torch.zeros_like(p) for p in model.parameters()]
    for example in range(len(inputs)):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for layer, own in zip(perturbable(twin, twin.parameters()), owned, strict=True):
                layer.weight.copy_(own[example])
        value = _loss(twin(inputs[example : example + 1])) / len(inputs)
        total += value.item()
        for part, slope in zip(
            expected, torch.autograd.grad(value, list(twin.parameters())), strict=True
        ):
            part += slope
    assert loss.item() == pytest.approx(total, rel=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)  # float64, sums of 1e2 terms


def test_examples_do_not_share_their_noise_and_the_weights_stay():
    model, _ = _nets()["linear"]
    before = bits(model)
    same = torch.ones(4, 4, dtype=torch.float64)
    layers = perturbable(model, model.parameters())
    with per_sample_noise(model, layers, Noise(), [SCALE] * 2) as move:
        move(0, 1)
        outputs = model(same)
        assert bits(model) == before
    assert len({tuple(row.tolist()) for row in outputs}) == 4
    assert len({tuple(row.tolist()) for row in model(same)}) == 1  # the hooks are gone


def _perturb_and_raise(model: nn.Module) -> None:
    layers = perturbable(model, model.parameters())
    with per_sample_noise(model, layers, Noise(), [SCALE] * 2) as move:
        move(0, 1)
        raise KeyboardInterrupt


def test_hooks_go_after_an_exception():
    model, _ = _nets()["linear"]
    with pytest.raises(KeyboardInterrupt):
        _perturb_and_raise(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_micro_batches_have_the_noise_of_the_whole(parts):
    def found(accumulate: int) -> list[Tensor]:
        model = network()
        method = make_method("s-sgd", model, Still(model.parameters()), noise_per="sample")
        method.passes.accumulate = accumulate
        method.gradient(minibatch(0), START)
        return [parameter.grad for parameter in model.parameters()]

    for one, other in zip(found(parts), found(1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_each_rank_has_signs_of_its_own():
    model, inputs = _nets()["linear"]
    outputs = []
    for rank in (0, 1):
        layers = perturbable(model, model.parameters())
        with per_sample_noise(model, layers, Noise(), [SCALE] * 2, rank) as move:
            move(0, 1)
            outputs.append(model(inputs))
    assert not torch.equal(*outputs)


def test_runs_in_bfloat16():
    model = network().float()
    method = make_method("s-sgd", model, noise_per="sample", noise_scale=0.5)
    method.passes.autocast = torch.bfloat16
    inputs, targets = minibatch(0)
    assert math.isfinite(method.step((inputs.float(), targets), START))


# What it cannot reach


def test_a_model_without_products_is_refused():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten())
    with pytest.raises(InputError, match="noise_per=step"):
        make_method("s-sgd", model, noise_per="sample")


def test_the_rest_has_no_noise_and_the_run_says_so(caplog):
    model = network()
    with caplog.at_level(logging.WARNING):
        method = make_method("s-sgd", model, noise_per="sample", exclude="none")
    assert "0.bias, 2.bias" in caplog.text
    assert len(method.mover.products) == 2


def test_a_layer_with_a_forward_of_its_own_is_left_out():
    class Doubled(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(2 * inputs)

    model = nn.Sequential(Doubled(4, 5), nn.Linear(5, 3))
    assert perturbable(model, model.parameters()) == [model[1]]


def test_a_compiled_model_is_refused():
    method = make_method("s-sgd", network(), noise_per="sample")
    method.passes.compiled = method.passes.model
    with pytest.raises(InputError, match="does not work on a compiled model"):
        method.step(minibatch(0), START)


def test_a_pass_that_calls_no_layer_is_refused():
    class Around(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            return nn.functional.linear(inputs, self[0].weight)

    model = Around(nn.Linear(4, 3)).double()
    method = make_method("s-sgd", model, noise_per="sample")
    with pytest.raises(InputError, match="called no layer that gets noise"):
        method.step(minibatch(0), START)


class Attention(nn.Module):
    """Its output projection is used by weight: the layer itself is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 6)
        self.mixed = nn.MultiheadAttention(6, 2, batch_first=True)
        self.leave = nn.Linear(6, 3)
        self.idle = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.enter(inputs[:, None])
        return self.leave(self.mixed(tokens, tokens, tokens, need_weights=False)[0][:, 0])


def test_a_layer_that_is_bypassed_is_told_of_once(caplog):
    torch.manual_seed(0)
    method = make_method("s-sgd", Attention().double(), noise_per="sample")
    with caplog.at_level(logging.WARNING):
        run_steps(method, 2)
    warned = [record.getMessage() for record in caplog.records]
    assert warned == [
        "noise_per=sample: mixed.in_proj_weight gets no noise: no nn.Linear or convolution owns it",
        "noise_per=sample: mixed.out_proj gets no noise,"
        " as its weight is used without calling the layer",
    ]
