"""SAM and its kin, read slowly."""

import math

import torch
from torch import Tensor

from readings.base import Direction, Reading, Step, Weights, gradient, loss, moved
from ssgd_analysis import seeds


def dot(first: Weights, second: Weights) -> float:
    """⟨a, b⟩ over all parameters."""
    return sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))


def norm(parts: Weights) -> float:
    """‖a‖ over all parameters."""
    return math.sqrt(dot(parts, parts))


def times(factor: float, parts: Weights) -> Weights:
    """factor · a."""
    return [factor * part for part in parts]


def in_parts(
    one: Direction, weights: Weights, inputs: Tensor, targets: Tensor, step: Step
) -> Weights:
    """The mean over parts of at most m examples; m = 0: all of them."""
    m = step.settings.m
    if m == 0:
        return one(weights, inputs, targets, step)
    parts = math.ceil(len(inputs) / m)
    short, longer = divmod(len(inputs), parts)
    total, start = times(0.0, weights), 0
    for number in range(parts):
        stop = start + short + (number < longer)
        found = one(weights, inputs[start:stop], targets[start:stop], step)
        total = moved(total, found, (stop - start) / len(inputs))
        start = stop
    return total


def top(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + ρ g/‖g‖)."""
    slope = gradient(weights, inputs, targets)
    return gradient(moved(weights, slope, step.settings.rho / norm(slope)), inputs, targets)


def sam(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + ρ g/‖g‖), g = ∇L_B(w); with m, the mean of that over parts."""
    return in_parts(top, weights, inputs, targets, step)


def asam(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """SAM with :func:`adaptive_top`."""
    return in_parts(adaptive_top, weights, inputs, targets, step)


def adaptive_top(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + ε), ε = ρ T² g/‖T g‖, T = |w| + η for matrices, 1 for biases (or for all)."""
    slope, settings = gradient(weights, inputs, targets), step.settings
    units = [
        weight.abs() + settings.eta
        if weight.ndim > 1 or settings.scaled == "all"
        else torch.ones_like(weight)
        for weight in weights
    ]
    scaled = [unit * part for unit, part in zip(units, slope, strict=True)]
    ascent = [
        settings.rho * unit**2 * part / norm(scaled)
        for unit, part in zip(units, slope, strict=True)
    ]
    return gradient(moved(weights, ascent), inputs, targets)


def gsam(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """g_p − α g_⊥, g_⊥ = g − ‖g‖ cos(g, g_p) g_p/‖g_p‖."""
    plain, above = gradient(weights, inputs, targets), top(weights, inputs, targets, step)
    cosine = dot(plain, above) / (norm(plain) * norm(above))
    perpendicular = moved(plain, above, -norm(plain) * cosine / norm(above))
    return moved(above, perpendicular, -step.settings.alpha)


def looksam(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """Each k-th step g_s, and g_v = g_s − ‖g_s‖ cos(g_s, g) g/‖g‖; else g + α ‖g‖/‖g_v‖ g_v."""
    plain = gradient(weights, inputs, targets)
    if step.number % step.settings.k == 0:
        above = top(weights, inputs, targets, step)
        cosine = dot(plain, above) / (norm(plain) * norm(above))
        step.memory["g_v"] = moved(above, plain, -norm(above) * cosine / norm(plain))
        return above
    side = step.memory["g_v"]
    return moved(plain, side, step.settings.alpha * norm(plain) / norm(side))


def gradient_penalty(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L + λ [∇L(w + r g/‖g‖) − ∇L(w)] / r, λ = α r."""
    r, lam = step.settings.rho, step.settings.alpha * step.settings.rho
    plain, above = gradient(weights, inputs, targets), top(weights, inputs, targets, step)
    return moved(plain, moved(above, plain, -1), lam / r)


def esam(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇ over the γ B examples whose loss rose most, at w + (ρ/β) m ⊙ g/‖g‖."""
    settings, slope = step.settings, gradient(weights, inputs, targets)
    stream = torch.Generator().manual_seed(seeds.derive(step.seed, "esam", step.number))
    shapes = [part.shape if settings.subset == "weights" else () for part in slope]
    masks = [(torch.rand(shape, generator=stream) < settings.beta).double() for shape in shapes]
    masked = [mask * part for mask, part in zip(masks, slope, strict=True)]
    length = norm(slope) if settings.subset == "weights" else norm(masked)
    above = moved(weights, masked, settings.rho / settings.beta / length)
    if settings.gamma == 1:
        return gradient(above, inputs, targets)
    pairs = [(inputs[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))]
    rises = [float(loss(above, *pair) - loss(weights, *pair)) for pair in pairs]
    count = int(settings.gamma * len(inputs))
    chosen = sorted(range(len(inputs)), key=lambda i: -rises[i])[:count]
    return gradient(above, inputs[sorted(chosen)], targets[sorted(chosen)])


READINGS = {
    "sam": Reading(
        sam, passes=2, zero={"rho": 0.0}, variants=[{"rho": 1.0}, {"m": 2}, {"m": 4, "rho": 0.5}]
    ),
    "asam": Reading(
        asam,
        passes=2,
        zero={"rho": 0.0},
        variants=[{"scaled": "all", "eta": 0.1}, {"eta": 0.0}, {"m": 2}],
    ),
    "gsam": Reading(
        gsam, passes=2, zero={"rho": 0.0, "alpha": 0.0}, variants=[{"rho": 0.5, "alpha": 1.0}]
    ),
    "looksam": Reading(
        looksam, passes=1.2, zero={"rho": 0.0, "alpha": 0.0}, variants=[{"k": 2, "rho": 0.5}]
    ),
    "gradient-penalty": Reading(
        gradient_penalty, passes=2, zero={"alpha": 0.0}, variants=[{"alpha": 1.5, "rho": 0.01}]
    ),
    "esam": Reading(
        esam,
        passes=1 + 1 / 3 + 1 / 2,
        random=True,
        zero={"rho": 0.0, "gamma": 1.0},
        variants=[
            {"rho": 0.5, "gamma": 1 / 3},
            {"subset": "tensors", "beta": 0.7, "rho": 0.5},
            {"gamma": 1.0, "rho": 0.5},
        ],
    ),
}
