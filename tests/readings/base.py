"""What the slow readings of the methods' update equations are written with.

A tanh network with one hidden layer, written out by hand in float64; SGD with momentum and
weight decay, written out too. Of the package only two documented things are used: the seed
stream ``seeds.derive(seed, "weight noise", step, draw)`` and the unit draws of ``Noise``, which
no equation can give. The size of the noise is worked out here.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.methods import Method, Passes, When, find_method
from ssgd_analysis.models import load_loss
from ssgd_analysis.optimizers.table import make_optimizer
from ssgd_analysis.weights import Noise
from ssgd_analysis.weights.noise import random_signs

Weights = list[Tensor]  # (5, 4), (5,), (3, 5), (3,)
PEAK_LR = 0.4  # of the schedule that a method is told of; its own learning rate is 0.2
Direction = Callable[[Weights, Tensor, Tensor, "Step"], Weights]


class Step:
    """What a method's step may depend on besides weights and minibatch.

    ``memory`` is one dictionary for the whole training: what the method remembers. ``base`` is
    the base optimizer, whose learning rate and velocity a method may change.
    """

    def __init__(
        self,
        settings: Any,
        *,
        seed: int,
        number: int,
        elapsed: float,
        memory: dict[str, Any] | None = None,
        lr: float = 0.2,
        base: "HeavyBall | None" = None,
    ) -> None:
        self.settings, self.seed, self.number, self.elapsed = settings, seed, number, elapsed
        self.memory = {} if memory is None else memory
        self.lr, self.base = lr, base


def nothing_after(before: Weights, after: Weights, step: Step) -> Weights:
    """The base optimizer's result is the new weights."""
    return after


@dataclass(frozen=True)
class Reading:
    """A method's equation, and what else a method owes.

    Args:
        direction: (w, inputs, targets, step) → what the base optimizer steps with, at w; the
            examples are ``minibatches`` × the batch size.
        passes: that each step costs; ``None`` where it is random.
        variants: settings, beside the defaults, at which the equation is checked.
        zero: settings at which the method is plain SGD, to the bit; ``None``: there are none.
        random: two seeds give two results.
        after: (w before, w after the base optimizer, step) → the new w.
        given_out: (w, memory, settings) → the weights that training gives out.
        minibatches: that a step is given.
        total: steps of the training, of which five are made.
        base: makes the slow base optimizer, where one belongs to the method.
    """

    direction: Direction
    passes: float | None
    variants: Sequence[dict[str, Any]] = ()
    zero: dict[str, Any] | None = None
    random: bool = False
    after: Callable[[Weights, Weights, Step], Weights] = nothing_after
    given_out: Callable[[Weights, dict[str, Any], Any], Weights] | None = None
    minibatches: int = 1
    total: int = 10
    base: Callable[[], Any] | None = None


# The problem


def network(seed: int = 0) -> nn.Sequential:
    """The network that the functions below write out by hand."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def minibatch(number: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs (size, 4) and labels (size,) of three classes."""
    generator = torch.Generator().manual_seed(100 + number)
    inputs = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (size,), generator=generator)


def loss(weights: Weights, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, one example after the other."""
    first, first_bias, second, second_bias = weights
    total = torch.zeros((), dtype=torch.float64)
    for example, target in zip(inputs, targets, strict=True):
        hidden = torch.tanh(first @ example + first_bias)
        logits = second @ hidden + second_bias
        total = total + torch.log(torch.exp(logits).sum()) - logits[target]
    return total / len(inputs)


def gradient(weights: Weights, inputs: Tensor, targets: Tensor) -> Weights:
    """Gradient of :func:`loss`."""
    leaves = [weight.detach().clone().requires_grad_() for weight in weights]
    return list(torch.autograd.grad(loss(leaves, inputs, targets), leaves))


# The noise


def _schedule(settings: Any, elapsed: float, lr: float) -> float:
    """From 1 at ``noise_start`` to ``noise_end`` at ``noise_stop``, no noise outside."""
    start, stop, end = settings.noise_start, settings.noise_stop, settings.noise_end
    if not start <= elapsed < stop:
        return 0.0
    elapsed = (elapsed - start) / (stop - start)
    return {
        "constant": 1.0,
        "linear": (1 - elapsed) + elapsed * end,
        "cosine": end + (1 - end) * 0.5 * (1 + math.cos(math.pi * elapsed)),
        "sqrt": (1 - math.sqrt(elapsed)) + math.sqrt(elapsed) * end,
        "lr": lr / PEAK_LR,
    }[settings.noise_schedule]


def _rms(values: Tensor) -> float:
    numbers = values.flatten().tolist()
    return math.sqrt(sum(number * number for number in numbers) / len(numbers))


def _units(weights: Weights, settings: Any, generator: torch.Generator) -> Weights:
    """Draws of root mean square one; the sphere's has it exactly, in each group."""
    law, relative_to = settings.noise_law, settings.noise_relative_to
    if law != "sphere":
        return Noise(law=law, scale="none").units(weights, generator)
    draws = Noise(law="gaussian", scale="none").units(weights, generator)
    if relative_to == "filter":
        return [torch.stack([row / _rms(row) for row in draw]) for draw in draws]
    return [draw / _rms(draw) for draw in draws]


def _relative(weight: Tensor, unit: Tensor, relative_to: str) -> Tensor:
    if relative_to == "filter":
        return torch.stack([_rms(row) * draw for row, draw in zip(weight, unit, strict=True)])
    if relative_to == "layer":
        return _rms(weight) * unit
    return weight.abs() * unit if relative_to == "weight" else unit


def noise(weights: Weights, step: Step, draw: int) -> Weights:
    """n = c · size · unit draw, for matrices; biases are spared.

    Of one layer only, where the setting says so: its place comes from the draw's own stream.
    """
    settings = step.settings
    stream = seeds.derive(step.seed, "weight noise", step.number, draw)
    generator = torch.Generator().manual_seed(stream)
    c = settings.noise_scale * _schedule(settings, step.elapsed, step.lr)
    places = [place for place, weight in enumerate(weights) if weight.ndim > 1]
    if settings.noise_per == "layer":
        places = [places[seeds.derive(stream, "layer") % len(places)]]
    units = _units([weights[place] for place in places], settings, generator)
    found = [torch.zeros_like(weight) for weight in weights]
    for place, unit in zip(places, units, strict=True):
        found[place] = c * _relative(weights[place], unit, settings.noise_relative_to)
    return found


def sample_noises(weights: Weights, step: Step, draw: int, count: int) -> list[Weights]:
    """For each of ``count`` examples the noise n ∘ r sᵀ, r and s its own random signs.

    A layer's signs are one stream, 64 at once, first those of the inputs.
    """
    whole = noise(weights, step, draw)
    stream = seeds.derive(step.seed, "weight noise", step.number, draw)
    found = [[torch.zeros_like(weight) for weight in weights] for _ in range(count)]
    places = [place for place, weight in enumerate(weights) if weight.ndim > 1]
    for number, place in enumerate(places):
        generator = seeds.generator(stream, "signs", number)
        outputs, inputs = weights[place].shape
        words = math.ceil((outputs + inputs) / 64)
        for own in found:
            signs = random_signs(64 * words, generator).double()
            s, r = signs[:inputs], signs[inputs : inputs + outputs]
            own[place] = whole[place] * torch.outer(r, s)
    return found


def moved(weights: Weights, by: Weights, sign: float = 1.0) -> Weights:
    """w + sign · by."""
    return [weight + sign * part for weight, part in zip(weights, by, strict=True)]


def mean(first: Weights, second: Weights) -> Weights:
    """½ (first + second)."""
    return [(a + b) / 2 for a, b in zip(first, second, strict=True)]


class HeavyBall:
    """v ← μ v + g + λ w; w ← w − η v. Weight decay acts at w."""

    def __init__(self, lr: float, momentum: float, weight_decay: float) -> None:
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.velocity: Weights | None = None

    def update(self, weights: Weights, direction: Weights) -> Weights:
        """The new weights."""
        slopes = moved(direction, weights, self.weight_decay)
        if self.velocity is None:
            self.velocity = slopes
        else:
            self.velocity = [
                self.momentum * v + g for v, g in zip(self.velocity, slopes, strict=True)
            ]
        return moved(weights, self.velocity, -self.lr)


# The package's side


class Still(torch.optim.Optimizer):
    """A base optimizer that does nothing: what it leaves is what the passes left."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:
        """Nothing."""


def make_method(
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    seed: int = 0,
    batch_size: int = 6,
    loss: str = "cross_entropy",
    **settings: Any,
) -> Method:
    """One of the package's methods on a model; default base: SGD, momentum, weight decay."""
    own = find_method(name).OPTIMIZER
    options: Any = {"lr": 0.02 if own else 0.2, "momentum": 0.9, "weight_decay": 0.05}
    base = optimizer or (
        make_optimizer(own, model, nesterov=False, **options)
        if own
        else torch.optim.SGD(model.parameters(), **options)
    )
    passes = Passes(model, load_loss(loss), base, batch_size=batch_size, seed=seed)
    method = find_method(name)
    return method(passes, method.Settings(**settings))


def make_step(method: Method, batch: tuple[Tensor, Tensor], when: When) -> float:
    """One step as the training loop makes it, at a learning rate that the method may replace."""
    for group in method.passes.optimizer.param_groups:
        group["lr"] = method.learning_rate(group["lr"], when.fraction_done)
        when = dataclasses.replace(when, lr_share=group["lr"] / PEAK_LR)
    return method.step(batch, when)


def run_steps(
    method: Method, steps: int, *, size: int = 6, total: int = 10, first: int = 0
) -> list[float]:
    """Steps as the training loop makes them, each an epoch; returns the losses."""
    losses = []
    for number in range(steps):
        inputs, targets = minibatch(number, size)
        dtype = next(method.passes.model.parameters()).dtype
        when = When(step=first + number, fraction_done=number / total, ends_epoch=True)
        losses.append(make_step(method, (inputs.to(dtype), targets), when))
    return losses


def bits(model: nn.Module) -> list[bytes]:
    """The exact bits of all parameters (−0 and 0 differ, which ``torch.equal`` hides)."""
    return [parameter.detach().cpu().numpy().tobytes() for parameter in model.parameters()]
