"""Adaptive worst-case sharpness: ascent within an elementwise relative ball."""

import math

import torch

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement, rise
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights import global_norm


@metric
def adaptive_worst(bench: Bench, *, rho: float = 0.5, steps: int = 10) -> Measurement:
    """Max L(w + |w|∘u) − L(w) over ‖u‖₂ ≤ ρ, found by projected gradient ascent on u.

    Normalised gradient steps from u = 0 (in a random direction
    where the gradient is zero), the first as long as the radius, halved whenever the
    loss did not rise; the best point seen counts. So it is a lower bound of the maximum.
    Invariant to layer, neuron and BatchNorm scale, as |w|∘u scales with w.

    Args:
        bench: the problem; the maximum is over the mean loss of its batches.
        rho: radius, L2 norm of the relative perturbation over all parameters.
        steps: ascent steps, one gradient of the whole data each.

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
    problem, before, slopes = bench.problem, bench.clean_losses, bench.clean_gradient
    with bench.moved() as clean:
        sizes = [weight.abs() for weight in clean]
        u = [torch.zeros_like(weight) for weight in clean]
        best, best_losses = problem.mean(before), before
        length = rho
        for step in range(steps):
            raw = slopes if step == 0 else bench.gradient()
            slopes = [size * part for size, part in zip(sizes, raw, strict=True)]
            norm = float(global_norm(slopes))
            if not math.isfinite(norm):
                raise WorkError("adaptive_worst: the gradient is not finite")
            if norm == 0:  # at a stationary point any direction is as good: a random one
                generator = bench.generator("adaptive_worst")
                slopes = [
                    torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device)
                    for w in clean
                ]
                norm = float(global_norm(slopes))
            trial = [v + slope * (length / norm) for v, slope in zip(u, slopes, strict=True)]
            shrink = min(1.0, rho / max(float(global_norm(trial)), 1e-300))
            trial = [v * shrink for v in trial]
            bench.put(clean, [s * v for s, v in zip(sizes, trial, strict=True)])
            losses = bench.losses()
            if problem.mean(losses) > best:
                u, best, best_losses = trial, problem.mean(losses), losses
            else:
                length /= 2
                bench.put(clean, [s * v for s, v in zip(sizes, u, strict=True)])
    return rise(bench, best_losses, {"rho": rho, "norm": "l2", "steps": steps})
