"""Averages of the weights, and Lookahead, around SGD, read slowly."""

from typing import Any

import torch
from torch import Tensor

from readings.base import Reading, Step, Weights, gradient


def sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w); the weights at the start are remembered."""
    step.memory.setdefault("visited", [weights])
    return gradient(weights, inputs, targets)


def visit(before: Weights, after: Weights, step: Step) -> Weights:
    """Remember where the training has been."""
    step.memory["visited"].append(after)
    return after


def weighted(points: list[Weights], shares: list[float]) -> Weights:
    """Σ share · point / Σ share, tensor by tensor."""
    return [
        sum(share * part for share, part in zip(shares, parts, strict=True)) / sum(shares)
        for parts in zip(*points, strict=True)
    ]


def ema_given_out(weights: Weights, memory: dict[str, Any], settings: Any) -> Weights:
    """Debiased: shares bᵗ⁻ⁱ of w₁ … wₜ; else also w₀ with share bᵗ, and 1 − b of all others."""
    b, points = settings.ema_decay, memory["visited"]
    last = len(points) - 1
    if settings.ema_debias:
        return weighted(points[1:], [b ** (last - i) for i in range(1, last + 1)])
    return weighted(points, [b**last, *[(1 - b) * b ** (last - i) for i in range(1, last + 1)]])


def swa(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w); from the start of averaging on the learning rate is constant."""
    if step.elapsed >= step.settings.swa_start and step.settings.swa_lr > 0:
        step.base.lr = step.settings.swa_lr
    return gradient(weights, inputs, targets)


def swa_visit(before: Weights, after: Weights, step: Step) -> Weights:
    """Remember the ends of epochs, here of one step each, once averaging has begun."""
    if step.elapsed >= step.settings.swa_start:
        step.memory.setdefault("visited", []).append(after)
    return after


def swa_given_out(weights: Weights, memory: dict[str, Any], settings: Any) -> Weights:
    """Plain mean of what was remembered; without any, the iterate."""
    points = memory.get("visited")
    return weights if points is None else weighted(points, [1.0] * len(points))


def slow_step(before: Weights, after: Weights, step: Step) -> Weights:
    """After each k-th step φ ← φ + α (w − φ), w ← φ; the velocity is kept, or forgotten."""
    settings, memory = step.settings, step.memory
    slow = memory.setdefault("slow", memory["visited"][0])
    if (step.number + 1) % settings.lookahead_k != 0:
        return after
    a = settings.lookahead_alpha
    memory["slow"] = [(1 - a) * phi + a * w for phi, w in zip(slow, after, strict=True)]
    if settings.lookahead_momentum == "reset":
        step.base.velocity = [torch.zeros_like(v) for v in step.base.velocity]
    return memory["slow"]


def lookahead_given_out(weights: Weights, memory: dict[str, Any], settings: Any) -> Weights:
    """φ."""
    return memory["slow"]


READINGS = {
    "ema": Reading(
        sgd,
        passes=1,
        zero={"ema_decay": 0.0},
        after=visit,
        given_out=ema_given_out,
        variants=[
            {"ema_decay": 0.5},
            {"ema_debias": False, "ema_decay": 0.9},
            {"ema_decay": 1.0},
            {"ema_buffers": "average"},
        ],
    ),
    "swa": Reading(
        swa,
        passes=1,
        zero={"swa_start": 1.0},
        after=swa_visit,
        given_out=swa_given_out,
        total=5,
        variants=[{"swa_start": 0.3}, {"swa_start": 0.3, "swa_lr": 0.0}],
    ),
    "lookahead": Reading(
        sgd,
        passes=1,
        zero={"lookahead_alpha": 1.0},
        after=slow_step,
        given_out=lookahead_given_out,
        variants=[
            {"lookahead_k": 2, "lookahead_alpha": 0.8},
            {"lookahead_k": 2, "lookahead_momentum": "reset"},
        ],
    ),
}
