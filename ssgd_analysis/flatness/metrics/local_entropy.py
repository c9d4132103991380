"""Local entropy: how much of a Gaussian around the weights has a low loss."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import Perturbation, metric

SIZES = (1.0, 0.5, 0.25, 0.125)  # of the moves, in turn: stiff directions accept small ones only

LEAST = 1.5  # effective draws: below, one of them has more than four fifths of the weight


@metric(
    "minus the log of the low-loss share of a Gaussian around the weights",
    invariant_to=("permutation",),
    perturbs=Perturbation("entropy", "gamma"),
)
def local_entropy(
    context: MetricContext, *, gamma: float = 1e4, draws: int = 16, steps: int = 8
) -> Measurement:
    """−log E exp(L(w) − L(w + z)), z ~ N(0, I/γ): the negative local entropy, relative.

    Entropy-SGD maximises F = log ∫ exp(−L(w') − γ/2 ‖w − w'‖²) dw'. This is −F − L(w) plus its
    value at L = 0, (P/2) log(2π/γ): nats, zero for a constant loss, larger when sharper. On a
    quadratic it is ½ Σ log(1 + λ_i/γ) − ½ gᵀ(H + γI)⁻¹g; for γ far above the curvature that is
    Tr H/(2γ), the rise of ``lpf`` with σ = γ^−½, less ‖g‖²/(2γ): the two agree only where ‖g‖² is
    far below Tr H. Not invariant to any rescaling of the weights.

    By annealed importance sampling: z starts from the Gaussian and moves through
    exp(−t ΔL − γ/2 ‖z‖²), t = (k/steps)², by Metropolis steps z → √(1 − β²) z + β ξ that leave
    each of them exactly as it is. So E of the weights is right for any number of steps, without
    the step-size bias of Langevin dynamics (SGLD), and without gradients. ``steps=1`` is the plain
    mean over Gaussian draws.

    Args:
        context: the problem.
        gamma: γ, inverse variance of each weight's noise: γ = 1/σ².
        draws: antithetic pairs of chains, at least 2.
        steps: temperatures, at least 1, one forward pass each.

    Returns:
        Nats; the error is that of the draws, to first order. ``details["effective"]``: the
        effective number of draws, (Σ w)²/Σ w². Where it is below a fifth of them, or below 1.5,
        few draws carry the mean and the value is likely too large: then there is no error, and
        more steps or a larger gamma are needed. In practice values up to some 10 nats can be had.

    Raises:
        InputError: a gamma that is not positive, too few draws or steps.
        WorkError: a loss is not finite in every chain.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.local_entropy(problem, draws=4).value, 5)
        0.00018

    Reference:
        Chaudhari et al. 2017 (arXiv 1611.01838), eq. 6, for F; Neal 2001 (arXiv physics/9803008)
        for annealed importance sampling; Cotter et al. 2013 (arXiv 1202.0709) for the moves.
    """
    if not 0 < gamma < math.inf or draws < 2 or steps < 1:
        raise InputError(
            f"gamma {gamma} should be > 0 and finite, draws {draws} ≥ 2, steps {steps} ≥ 1"
        )
    logs, accepted = np.empty((draws, 2)), np.empty((draws, 2))
    start_loss = context.problem.mean(context.clean_losses)
    with context.moved() as clean:
        for draw in range(draws):
            for column, sign in enumerate((1, -1)):  # mirrored: the same noise, the other sign
                generator = context.generator(f"local_entropy {draw}")
                sigma = sign / math.sqrt(gamma)
                found = _chain(context, clean, sigma, start_loss, steps, generator)
                logs[draw, column], accepted[draw, column] = found
    top = logs.max()
    if not math.isfinite(top):
        raise WorkError("no loss around the weights is finite: take a larger gamma")
    weights = np.exp(logs - top).mean(axis=1)
    value = -top - math.log(weights.mean())
    settings = {
        "gamma": gamma,
        "draws": draws,
        "steps": steps,
        "seed": context.seed,
        "error": "draws",
    }
    effective = float(weights.sum() ** 2 / np.square(weights).sum())
    details = {
        "effective": effective,
        "accepted": float(accepted.mean()),
        "sigma": 1 / math.sqrt(gamma),
    }
    if effective < max(draws / 5, LEAST):
        return Measurement(value, None, settings, details=details)
    samples = value - (weights / weights.mean() - 1)  # to first order each draw's part
    return dataclasses.replace(of_draws(samples.tolist(), settings), details=details)


def _chain(
    context: MetricContext,
    clean: Sequence[Tensor],
    sigma: float,
    start_loss: float,
    steps: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """The log weight of one annealed chain at w + sigma z, and the share of accepted moves."""

    def normal() -> list[Tensor]:
        # in the order of the weight's indices, however it lies in memory
        return [
            torch.empty_like(w, memory_format=torch.contiguous_format).normal_(generator=generator)
            for w in clean
        ]

    def rise(z: Sequence[Tensor]) -> float:
        context.put(clean, z, sigma)
        found = context.problem.mean(context.losses()) - start_loss
        return found if math.isfinite(found) else math.inf

    z = normal()
    here, log, accepted = rise(z), 0.0, 0
    for step in range(1, steps + 1):
        before, now = ((step - 1) / steps) ** 2, (step / steps) ** 2
        log -= (now - before) * here
        if step == steps:
            break
        size = SIZES[(step - 1) % len(SIZES)]
        trial = [
            old.mul(math.sqrt(1 - size**2)).add_(new, alpha=size)
            for old, new in zip(z, normal(), strict=True)
        ]
        there = rise(trial)
        chance = float(torch.rand(1, generator=generator, device=generator.device))
        if there < here or chance < math.exp(-now * (there - here)):
            z, here, accepted = trial, there, accepted + 1
    return log, accepted / max(steps - 1, 1)
