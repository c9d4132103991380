"""Noise of its own for each example of a minibatch, by perturbing the products of layers."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError
from ssgd_analysis.weights import Noise
from ssgd_analysis.weights.noise import random_signs

Layer = Any  # an nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d
COMPILED = "noise_per=sample does not work on a compiled model: pass the model before torch.compile"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FORWARDS = {kind.forward for kind in (nn.Linear, *_CONVOLUTIONS)}
_warned: WeakSet[nn.Module] = WeakSet()  # layers that a warning was given about
log = logging.getLogger(__name__)


def perturbable(model: nn.Module, parameters: Iterable[Tensor]) -> list[Layer]:
    """The linear and convolution layers whose weight is among the parameters.

    A subclass with a forward of its own is left out: what it does with its weight is unknown.

    Raises:
        InputError: there are none, or the model is compiled.
    """
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        raise InputError(COMPILED)
    wanted = {id(parameter) for parameter in parameters}
    layers: list[Layer] = [
        module
        for module in model.modules()
        if type(module).forward in _FORWARDS and id(module.weight) in wanted
    ]
    if not layers:
        raise InputError(
            "noise_per=sample needs an nn.Linear or a convolution that gets noise, and the model"
            " has none: use noise_per=step"
        )
    return layers


@contextmanager
def per_sample_noise(
    model: nn.Module,
    layers: Sequence[Layer],
    noise: Noise,
    scales: Sequence[float],
    rank: int = 0,
) -> Iterator[Callable[[int, int], None]]:
    """Each example of a minibatch sees weights of its own: flipout.

    Example i sees W + sign · ΔW ∘ rᵢ sᵢᵀ: the layer gives W x + sign · (ΔW (x ∘ sᵢ)) ∘ rᵢ, where ΔW
    is one draw of the noise and rᵢ, sᵢ are random signs of the output and input channels
    (Wen et al. 2018, arXiv 1803.04386). Where the law is symmetric each example's noise has that
    law, and two examples' are uncorrelated. The weights themselves are not moved: their gradient
    is that of each example at its own noisy weights, ΔW held constant.

    Args:
        model: its forward hooks are there while the context lasts. The first axis of what a
            layer is given must be the examples.
        layers: of :func:`perturbable`.
        noise: law and size of ΔW.
        scales: c for each layer.
        rank: of this process: the examples of each have signs of their own.

    Yields:
        A function of (seed, sign) to call before each pass.

    Raises:
        InputError: a pass went by in which no layer was called.
    """
    state = _Flipout(layers, noise, scales, rank)
    handles = [model.register_forward_pre_hook(state.begin)]
    handles += [layer.register_forward_hook(state.perturb, with_kwargs=True) for layer in layers]
    try:
        yield state.move
    finally:
        for handle in handles:
            handle.remove()
    state.check()
    _tell_bypassed(model, [layer for layer in layers if layer.weight not in state.reached])


def _tell_bypassed(model: nn.Module, uncalled: Sequence[Layer]) -> None:
    """Say once which weights were used past their layers, so without noise.

    ``nn.MultiheadAttention`` does so with its output projection. A layer that no pass used at
    all has no gradient, and misses nothing.
    """
    new = [layer for layer in uncalled if layer.weight.grad is not None and layer not in _warned]
    if new:
        _warned.update(new)
        names = [name for name, module in model.named_modules() if module in new]
        log.warning(
            "noise_per=sample: %s gets no noise, as its weight is used without calling the layer",
            ", ".join(names),
        )


class _Flipout:
    """What the hooks of one step share; a weight that two layers share has one noise."""

    def __init__(
        self, layers: Sequence[Layer], noise: Noise, scales: Sequence[float], rank: int
    ) -> None:
        self.noise, self.rank = noise, [rank] * bool(rank)
        self.scales = {layer.weight: scale for layer, scale in zip(layers, scales, strict=True)}
        self.called = True
        self.reached: set[Tensor] = set()  # weights whose noise reached some pass

    def move(self, seed: int, sign: int) -> None:
        """The noise of the next pass."""
        self.check()
        weights = list(self.scales)
        draws = self.noise.draw(weights, [sign * c for c in self.scales.values()], seed)
        self.noises = dict(zip(weights, draws, strict=True))
        self.generators = {
            weight: seeds.generator(seed, "signs", index, *self.rank, device=weight.device)
            for index, weight in enumerate(weights)
        }
        self.signs: dict[Tensor, Tensor] = {}
        self.called = False

    def check(self) -> None:
        if not self.called:
            raise InputError(
                "noise_per=sample: the pass called no layer that gets noise: use noise_per=step"
            )

    def begin(self, *_: Any) -> None:
        """A new call of the model: other examples, so other signs."""
        self.signs = {}

    def perturb(
        self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        """The layer's output with the products of each example's own noise."""
        self.called = True
        inputs: Tensor = args[0] if args else kwargs["input"]
        weight = layer.weight
        self.reached.add(weight)
        is_linear = isinstance(layer, nn.Linear)
        channels = inputs.shape[-1] if is_linear else layer.in_channels
        rows = self._signs_of(weight, len(inputs), channels + len(weight)).to(output.dtype)
        between = [1] * (inputs.ndim - 2)
        shape = (len(inputs), *between, -1) if is_linear else (len(inputs), -1, *between)
        turned = inputs * rows[:, :channels].reshape(shape)
        if is_linear:
            product = nn.functional.linear(turned, self.noises[weight])
        else:
            product = layer._conv_forward(turned, self.noises[weight], None)
        return output + product * rows[:, channels:].reshape(shape)

    def _signs_of(self, weight: Tensor, examples: int, width: int) -> Tensor:
        """Shape (examples, width); the same for an example however a minibatch is cut."""
        if weight not in self.signs or len(self.signs[weight]) != examples:
            whole = -(-width // 64) * 64  # signs are drawn 64 at once
            signs = random_signs(examples * whole, self.generators[weight], torch.float32)
            self.signs[weight] = signs.reshape(examples, whole)[:, :width]
        return self.signs[weight]
