"""A ball of perturbations of the weights, and one ascent of the loss in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.flatness.context import MetricContext
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

    def steepest(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The direction of unit norm along which a loss with this gradient rises most."""
        if self.norm == "linf":
            return [grad.sign() for grad in grads]
        norm = global_norm(grads)
        return [grad / norm for grad in grads]

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


@dataclass(frozen=True)
class BallPoint:
    """A point of the ball: the mean loss and each batch's, where it is, the gradient there."""

    value: float
    losses: list[float]
    u: Sequence[Tensor]
    gradient: Sequence[Tensor]


def point_at(
    context: MetricContext, clean: Sequence[Tensor], ball: Ball, u: Sequence[Tensor]
) -> BallPoint:
    """A point and the gradient there, at the cost of one; inside :meth:`MetricContext.moved`."""
    context.put(clean, _moves(u, clean, ball))
    losses, gradient = context.losses_and_gradient()
    return BallPoint(_finite(context, losses, ball), losses, u, gradient)


def _finite(context: MetricContext, losses: Sequence[float], ball: Ball) -> float:
    value = context.problem.mean(losses)
    if not math.isfinite(value):
        raise WorkError(f"the loss is {value} within rho {ball.radius}: use a smaller rho")
    return value


def climb(
    context: MetricContext,
    clean: Sequence[Tensor],
    ball: Ball,
    generator: torch.Generator,
    start: BallPoint,
    steps: int,
) -> BallPoint:
    """The best point of an ascent (APGD) of the mean loss; inside :meth:`MetricContext.moved`.

    Steepest ascent with momentum, projected; the first step from the clean weights, as long as
    the ball is wide, leads to its surface. At every checkpoint the step is halved and the ascent
    goes on from the best point if fewer than 3/4 of the steps rose, or if neither the step nor
    the best loss changed since the last checkpoint. Where the slope is exactly zero, as at an
    interpolating minimum, any direction is as good: a random one is taken.

    The loss of a point comes out of the pass that makes its gradient, so n steps take n
    gradients, that of the start among them, and one forward pass. The gradient at the point
    returned may be another one's.

    Reference:
        Croce and Hein 2020 (arXiv 2003.01690), algorithm 1.
    """
    reviews, length, rises, reviewed = checkpoints(steps), 2 * ball.radius, 0, 0
    value, losses, u, gradient = start.value, start.losses, start.u, start.gradient
    previous, best, last_review = u, start, (0.0, start.value)
    for step in range(1, steps + 1):
        grads = grads_of(gradient, clean, ball, generator)
        target = ball.project(_add(u, ball.steepest(grads), length))
        if step > 1:  # the first has nothing to continue
            eased = _add(_add(u, target, MOMENTUM), u, -MOMENTUM)
            target = ball.project(_add(_add(eased, u, 1 - MOMENTUM), previous, MOMENTUM - 1))
        u, previous = target, u
        context.put(clean, _moves(u, clean, ball))
        if step < steps:
            losses, gradient = context.losses_and_gradient()
        else:
            losses = context.losses()
        before, value = value, _finite(context, losses, ball)
        rises += value > before
        if value > best.value:
            best = BallPoint(value, losses, u, gradient)
        if step in reviews:
            stuck = last_review == (length, best.value)
            last_review = (length, best.value)
            if stuck or rises < RISES * (step - reviewed):
                length /= 2
                value, losses, u, gradient = best.value, best.losses, best.u, best.gradient
            rises, reviewed = 0, step
    return best


def _add(one: Sequence[Tensor], other: Sequence[Tensor], factor: float) -> list[Tensor]:
    return [a.add(b, alpha=factor) for a, b in zip(one, other, strict=True)]


def _moves(u: Sequence[Tensor], clean: Sequence[Tensor], ball: Ball) -> Sequence[Tensor]:
    """The perturbation of the weights for a point of the ball."""
    return [w.abs() * part for w, part in zip(clean, u, strict=True)] if ball.relative else u


def grads_of(
    gradient: Sequence[Tensor],
    clean: Sequence[Tensor],
    ball: Ball,
    generator: torch.Generator,
) -> list[Tensor]:
    """How the loss rises with each coordinate of the ball; random where it does not at all."""
    norm = float(global_norm(gradient))
    if not math.isfinite(norm):
        raise WorkError("the gradient is not finite")
    grads = list(_moves(gradient, clean, ball))
    if norm > 0 and float(global_norm(grads)) > 0:
        return grads
    return random_grads(clean, generator)


def random_grads(clean: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """A standard normal number for each weight."""
    return [
        torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device) for w in clean
    ]
