"""Adam, AdamW, Muon, LARS and LAMB, read slowly: entry by entry, or by matrix."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from readings.base import Reading, Weights
from readings.core import sgd

LR, DECAY = 0.02, 0.05  # what ``make_method`` gives these optimizers, and momentum 0.9


class ReadBase:
    """A base optimizer: one rule for each tensor, told its place, and what it remembers."""

    def __init__(self, rule: Callable[[Tensor, Tensor, dict, int], Tensor]) -> None:
        self.rule, self.memory, self.step = rule, {}, 0

    def update(self, weights: Weights, direction: Weights) -> Weights:
        """The new weights."""
        self.step += 1
        return [
            self.rule(w, g, self.memory.setdefault(place, {"place": place}), self.step)
            for place, (w, g) in enumerate(zip(weights, direction, strict=True))
        ]


def _moments(
    w: Tensor, g: Tensor, memory: dict, step: int, betas: tuple[float, float], eps: float
) -> Tensor:
    """m̂/(√v̂ + ε), from the sums that the recursions of m and v stand for."""
    history = memory.setdefault("slopes", [])
    history.append(g)
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    for age, slope in enumerate(reversed(history)):
        first += (1 - betas[0]) * betas[0] ** age * slope
        second += (1 - betas[1]) * betas[1] ** age * slope**2
    return first / (1 - betas[0] ** step) / ((second / (1 - betas[1] ** step)) ** 0.5 + eps)


def adam(w: Tensor, g: Tensor, memory: dict, step: int) -> Tensor:
    """Weight decay in the gradient."""
    return w - LR * _moments(w, g + DECAY * w, memory, step, (0.9, 0.999), 1e-8)


def adamw(w: Tensor, g: Tensor, memory: dict, step: int) -> Tensor:
    """Weight decay beside the gradient."""
    return w - LR * DECAY * w - LR * _moments(w, g, memory, step, (0.9, 0.999), 1e-8)


def muon(w: Tensor, g: Tensor, memory: dict, step: int) -> Tensor:
    """The first matrix is hidden; the last one and the biases get AdamW."""
    if memory["place"] > 0:
        rate = 0.015 * LR
        return w - rate * DECAY * w - rate * _moments(w, g, memory, step, (0.9, 0.95), 1e-10)
    momentum = memory["m"] = 0.9 * memory.get("m", torch.zeros_like(w)) + 0.1 * g
    update = 0.1 * g + 0.9 * momentum
    left, values, right = torch.linalg.svd(update / update.norm(), full_matrices=False)
    for _ in range(5):  # the matrix polynomial acts on each singular value alone
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    scale = math.sqrt(max(1, w.shape[0] / w.shape[1]))
    return w - LR * DECAY * w - LR * scale * left @ torch.diag(values) @ right


def _length(values: Tensor) -> float:
    return math.sqrt(sum(number**2 for number in values.flatten().tolist()))


def lars(w: Tensor, g: Tensor, memory: dict, step: int) -> Tensor:
    """λ = η ‖w‖/(‖g‖ + β‖w‖); the learning rate is inside the velocity."""
    rate, decay = LR, 0.0
    if w.ndim > 1:
        rate, decay = LR * 0.001 * _length(w) / (_length(g) + DECAY * _length(w)), DECAY
    memory["v"] = 0.9 * memory.get("v", torch.zeros_like(w)) + rate * (g + decay * w)
    return w - memory["v"]


def lamb(w: Tensor, g: Tensor, memory: dict, step: int) -> Tensor:
    """u = r + λ w, at ‖w‖/‖u‖ of the rate."""
    update = _moments(w, g, memory, step, (0.9, 0.999), 1e-6)
    if w.ndim == 1:
        return w - LR * update
    update = update + DECAY * w
    return w - LR * _length(w) / _length(update) * update


READINGS = {
    name: Reading(sgd, passes=1, base=lambda rule=rule: ReadBase(rule))
    for name, rule in (
        ("adam", adam),
        ("adamw", adamw),
        ("muon", muon),
        ("lars", lars),
        ("lamb", lamb),
    )
}
