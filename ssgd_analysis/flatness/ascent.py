"""Ascent of the loss within a ball of perturbations, shared by all worst cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement, of_batches, rise
from ssgd_analysis.weights import global_norm

NORMS = ("l2", "linf")
MOMENTUM = 0.75  # share of the new step; the rest continues the last one
RISES = 0.75  # share of steps since a checkpoint that should rise, else the step is halved


@dataclass(frozen=True)
class Ball:
    """Perturbations e with ‖e‖ ≤ radius, or |w|∘u with ‖u‖ ≤ radius, over all parameters.

    Args:
        radius: in weight units, or relative to each weight.
        norm: ``l2`` or ``linf``.
        relative: whether entries count relative to their weight.

    Raises:
        InputError: a negative or infinite radius, or an unknown norm.
    """

    radius: float
    norm: str = "l2"
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.radius < math.inf:
            raise InputError(f"rho {self.radius} should be ≥ 0 and finite")
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)

    def steepest(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        """The direction of unit norm along which a loss with these slopes rises most."""
        if self.norm == "linf":
            return [slope.sign() for slope in slopes]
        norm = global_norm(slopes)
        return [slope / norm for slope in slopes]

    def project(self, u: Sequence[Tensor]) -> list[Tensor]:
        """The nearest point of the ball."""
        if self.norm == "linf":
            return [part.clamp(-self.radius, self.radius) for part in u]
        shrink = min(1.0, self.radius / max(float(global_norm(u)), 1e-300))
        return [part * shrink for part in u]


def checkpoints(steps: int) -> list[int]:
    """After which steps the step length is reviewed: ever closer, as the ascent settles.

    Reference:
        Croce and Hein 2020 (arXiv 2003.01690), section 3.1.
    """
    shares = [0, 22]  # per cent: whole numbers, as rounding would put ⌈0.57 · 100⌉ at 58
    while shares[-1] < 100:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    return sorted({-(-share * steps // 100) for share in shares[1:] if share < 100})


def ascend(bench: Bench, ball: Ball, steps: int, name: str) -> list[float]:
    """Each batch's loss at the worst point of the ball that APGD finds for the mean loss.

    Steepest ascent from the clean weights with momentum, projected; the first step, as long as
    the ball is wide, leads to its surface. At every checkpoint the step is halved and the ascent
    goes on from the best point if fewer than 3/4 of the steps rose, or if neither the step nor
    the best loss changed since the last checkpoint. Where the slope is exactly zero, as at an
    interpolating minimum, any direction is as good: a random one is taken.

    The loss of a point comes out of the pass that makes its gradient, so n steps take n
    gradients (the first shared by all metrics of the bench) and one forward pass.

    Args:
        bench: the problem.
        ball: where to look.
        steps: at least 1.
        name: of the metric: the random stream is its.

    Raises:
        InputError: no steps.
        WorkError: a loss or gradient in the ball is not finite.

    Reference:
        Croce and Hein 2020 (arXiv 2003.01690), algorithm 1.
    """
    if steps < 1:
        raise InputError(f"steps {steps} should be ≥ 1")
    losses, gradient = bench.clean_losses, bench.clean_gradient
    if ball.radius == 0:  # losses of a pass with gradients may round otherwise
        return losses
    generator, reviews = bench.generator(name), checkpoints(steps)
    length, rises, reviewed = 2 * ball.radius, 0, 0
    with bench.moved() as clean:
        u = previous = [torch.zeros_like(weight) for weight in clean]
        value = bench.problem.mean(losses)
        best, last_review = (value, losses, u, gradient), (0.0, value)
        for step in range(1, steps + 1):
            slopes = _slopes(gradient, clean, ball, generator)
            target = ball.project(_add(u, ball.steepest(slopes), length))
            if step > 1:  # the first has nothing to continue
                kept = _add(_add(u, target, MOMENTUM), u, -MOMENTUM)
                target = ball.project(_add(_add(kept, u, 1 - MOMENTUM), previous, MOMENTUM - 1))
            u, previous = target, u
            bench.put(clean, _moves(u, clean, ball))
            if step < steps:
                losses, gradient = bench.losses_and_gradient()
            else:
                losses = bench.losses()
            before, value = value, bench.problem.mean(losses)
            if not math.isfinite(value):
                raise WorkError(f"the loss is {value} within rho {ball.radius}")
            rises += value > before
            if value > best[0]:
                best = (value, losses, u, gradient)
            if step in reviews:
                stuck = last_review == (length, best[0])
                last_review = (length, best[0])
                if stuck or rises < RISES * (step - reviewed):
                    length /= 2
                    value, losses, u, gradient = best
                rises, reviewed = 0, step
    return best[1]


def worst(bench: Bench, ball: Ball, steps: int, m: int | None, name: str) -> Measurement:
    """The mean over groups of m examples of the largest rise of each group's mean loss.

    Args:
        bench: the problem.
        ball: where to look.
        steps: of each ascent.
        m: examples of a group, cut from the problem's in their order; 0: all in one group, as
            ``None``, which is of a metric that has no such setting.
        name: of the metric.

    Returns:
        Nats. The error is that of sampling groups; of a single group, that of sampling its
        batches at the perturbation found.

    Raises:
        InputError: settings out of range, or batches that should be cut and can't be.
        WorkError: a loss or gradient in the ball is not finite.
    """
    problem = bench.problem
    settings = {"rho": ball.radius, "norm": ball.norm, "steps": steps, "seed": bench.seed}
    if m is None:
        return rise(bench, ascend(bench, ball, steps, name), settings)
    settings["m"] = m
    if m < 0:
        raise InputError(f"m {m} should be ≥ 1, or 0 for all examples in one group")
    if m == 0 or m >= problem.n_samples:
        return rise(bench, ascend(bench, ball, steps, name), settings)
    groups = batching.regrouped(problem.batches, m, map(problem.examples, problem.batches))
    asis = len(groups) == len(problem.batches) and all(len(group) == 1 for group in groups)
    if not asis and not bench.divisible:
        raise InputError(
            "the loss of a batch is not the mean of its examples' losses, so it can't be cut to"
            f" groups: give batches of m = {m} examples"
        )
    shares, values = [], []
    for group in groups:
        part = Bench(problem.with_batches(group), bench.seed)
        worst_loss, clean_loss = (
            part.problem.mean(losses)
            for losses in (ascend(part, ball, steps, name), part.clean_losses)
        )
        share = part.problem.weight / problem.weight
        bench.pay(forwards=share * part.cost.forwards, gradients=share * part.cost.gradients)
        shares.append(share)
        values.append(worst_loss - clean_loss)
    return of_batches(bench, values, settings, shares)


def _add(one: Sequence[Tensor], other: Sequence[Tensor], factor: float) -> list[Tensor]:
    return [a.add(b, alpha=factor) for a, b in zip(one, other, strict=True)]


def _moves(u: Sequence[Tensor], clean: Sequence[Tensor], ball: Ball) -> Sequence[Tensor]:
    """The perturbation of the weights for a point of the ball."""
    return [w.abs() * part for w, part in zip(clean, u, strict=True)] if ball.relative else u


def _slopes(
    gradient: Sequence[Tensor],
    clean: Sequence[Tensor],
    ball: Ball,
    generator: torch.Generator,
) -> list[Tensor]:
    """How the loss rises with each coordinate of the ball; random where it does not at all."""
    norm = float(global_norm(gradient))
    if not math.isfinite(norm):
        raise WorkError("the gradient is not finite")
    slopes = list(_moves(gradient, clean, ball))
    if norm > 0 and float(global_norm(slopes)) > 0:
        return slopes
    return [
        torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device) for w in clean
    ]
