"""Adaptive worst-case sharpness: ascent within an elementwise relative ball."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.measurement import Measurement, rise
from ssgd_analysis.problem import Batch, Loss, Problem
from ssgd_analysis.weights import borrowed_weights, global_norm


def adaptive_worst(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    *,
    rho: float = 0.5,
    steps: int = 10,
    seed: int = 0,
) -> Measurement:
    """Max L(w + |w|∘u) − L(w) over ‖u‖₂ ≤ ρ, found by projected gradient ascent on u.

    Normalised gradient steps from u = 0, the first as long as the radius, halved whenever the
    loss did not rise; the best point seen counts. So it is a lower bound of the maximum.
    Invariant to layer, neuron and BatchNorm scale, as |w|∘u scales with w.

    Args:
        model: any ``nn.Module``.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs; the maximum is over their mean loss, whatever
            their sizes.
        rho: radius, L2 norm of the relative perturbation over all parameters.
        steps: ascent steps, one gradient of the whole data each.
        seed: of the first direction where the gradient is exactly zero; else nothing is random.

    Returns:
        Nats; the error is that of sampling the examples, at the perturbation found.

    Raises:
        InputError: a negative or infinite radius, or no steps.
        WorkError: the gradient is not finite.

    Reference:
        Kwon et al. 2021 (arXiv 2102.11600), adaptive sharpness; Andriushchenko et al. 2023
        (arXiv 2302.07011), with several steps.
    """
    if not 0 <= rho < math.inf or steps < 1:
        raise InputError(f"adaptive_worst: rho {rho} should be ≥ 0 and finite, steps {steps} ≥ 1")
    problem = Problem(model, loss, batches)
    parameters = list(problem.parameters.values())
    before = problem.batch_losses()
    with borrowed_weights(parameters) as clean, torch.no_grad():
        sizes = [weight.abs() for weight in clean]
        u = [torch.zeros_like(weight) for weight in clean]
        best, best_losses = problem.mean(before), before
        length = rho
        for _ in range(steps):
            slopes = [size * part for size, part in zip(sizes, problem.gradient(), strict=True)]
            norm = float(global_norm(slopes))
            if not math.isfinite(norm):
                raise WorkError("adaptive_worst: the gradient is not finite")
            if norm == 0:  # at a stationary point any direction is as good: a random one
                generator = seeds.generator(seed, "adaptive_worst", device=problem.device)
                slopes = [
                    torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device)
                    for w in clean
                ]
                norm = float(global_norm(slopes))
            trial = [v + slope * (length / norm) for v, slope in zip(u, slopes, strict=True)]
            shrink = min(1.0, rho / max(float(global_norm(trial)), 1e-300))
            trial = [v * shrink for v in trial]
            _move(parameters, clean, sizes, trial)
            losses = problem.batch_losses()
            if problem.mean(losses) > best:
                u, best, best_losses = trial, problem.mean(losses), losses
            else:
                length /= 2
                _move(parameters, clean, sizes, u)
    value, error = rise(problem, before, best_losses)
    settings = {"rho": rho, "norm": "l2", "steps": steps, "error": "examples"}
    return Measurement(value, error, settings)


def _move(
    parameters: Sequence[Tensor], clean: list[Tensor], sizes: list[Tensor], u: list[Tensor]
) -> None:
    for parameter, weight, size, v in zip(parameters, clean, sizes, u, strict=True):
        parameter.copy_(weight + size * v)
