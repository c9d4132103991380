"""Expected sharpness: the mean rise of the loss under random weight noise."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.problem import Batch, Loss, Problem
from ssgd_analysis.weights import Noise, borrowed_weights


def expected(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    *,
    sigma: float = 0.1,
    law: str = "gaussian",
    scale: str = "weight",
    draws: int = 50,
    seed: int = 0,
) -> Measurement:
    """E_z ½[L(w + z) + L(w − z)] − L(w), z = sigma × relative noise on every parameter.

    Antithetic pairs cancel the first order in z, and one seed gives every model the same raw
    noise (common random numbers), so that differences between models are sharper than each
    value. To second order the value is ½ E[zᵀHz]. The default, Gaussian noise relative to each
    weight, is no method's training noise, and invariant to layer, neuron and BatchNorm scale.

    Args:
        model: any ``nn.Module``.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs.
        sigma: noise scale, relative to what ``scale`` names.
        law: ``binary``, ``gaussian``, ``sphere`` or ``uniform``.
        scale: ``filter``, ``layer``, ``weight`` or ``none`` (absolute).
        draws: antithetic pairs, at least 2.
        seed: of the noise.

    Returns:
        Nats; the error is that of the draws.

    Raises:
        InputError: a negative sigma, fewer than 2 draws, an unknown law or scale.

    Reference:
        Andriushchenko et al. 2023 (arXiv 2302.07011), average-case adaptive sharpness.
    """
    if not 0 <= sigma < math.inf or draws < 2:
        raise InputError(f"expected: sigma {sigma} should be ≥ 0 and finite, draws {draws} ≥ 2")
    problem, noise = Problem(model, loss, batches), Noise(law=law, scale=scale)
    parameters = list(problem.parameters.values())
    generator = seeds.generator(seed, "expected", device=problem.device)
    base = problem.mean_loss()
    rises = np.empty(draws)
    for draw in range(draws):
        with borrowed_weights(parameters) as clean, torch.no_grad():
            moves = [noise.sample(weight, generator).mul_(sigma) for weight in clean]
            losses = []
            for sign in (1, -1):
                for parameter, weight, move in zip(parameters, clean, moves, strict=True):
                    parameter.copy_(weight).add_(move, alpha=sign)
                losses.append(problem.mean_loss())
        rises[draw] = sum(losses) / 2 - base
    settings = {
        "sigma": sigma,
        "law": law,
        "scale": scale,
        "draws": draws,
        "antithetic": True,
        "seed": seed,
        "error": "draws",
    }
    return Measurement(float(rises.mean()), float(rises.std(ddof=1) / draws**0.5), settings)
