"""SAM sharpness: the rise of the loss after one ascent step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.measurement import Measurement, rise
from ssgd_analysis.problem import Batch, Loss, Problem
from ssgd_analysis.weights import borrowed_weights, global_norm


def sam(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], *, rho: float = 0.05, seed: int = 0
) -> Measurement:
    """L(w + ρ g/‖g‖) − L(w), g the gradient of the mean loss over all examples.

    One first-order step, a lower bound of the worst case in the L2 ball of radius ρ; where the
    gradient is exactly zero there is no direction to go and the value is zero.

    Args:
        model: any ``nn.Module``.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs.
        rho: radius, L2 norm over all parameters.
        seed: not needed, nothing is random.

    Returns:
        Nats; the error is that of sampling the examples, at this perturbation.

    Raises:
        InputError: a negative or infinite radius.
        WorkError: the gradient is not finite.

    Reference:
        Foret et al. 2021 (arXiv 2010.01412), eq. 2.
    """
    if not 0 <= rho < math.inf:
        raise InputError(f"sam: rho {rho} should be ≥ 0 and finite")
    problem = Problem(model, loss, batches)
    parameters = list(problem.parameters.values())
    gradient = problem.gradient()
    norm = float(global_norm(gradient))
    if not math.isfinite(norm):
        raise WorkError("sam: the gradient is not finite at these weights")
    before = problem.batch_losses()
    with borrowed_weights(parameters), torch.no_grad():
        for parameter, slope in zip(parameters, gradient, strict=True):
            parameter.add_(slope, alpha=rho / norm if norm else 0.0)
        value, error = rise(problem, before, problem.batch_losses())
    return Measurement(value, error, {"rho": rho, "error": "examples"})
