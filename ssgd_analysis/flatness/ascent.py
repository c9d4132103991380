"""Ascent of the loss within a ball of perturbations, shared by all worst cases."""

import bisect
import dataclasses
import functools
import glob
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement, of_batches, rise
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import global_norm

NORMS = ("l2", "linf")
MOMENTUM = 0.75  # share of the new step; the rest continues the last one
RISES = 0.75  # share of steps since a checkpoint that should rise, else the step is halved
STARTS, SHORT, FULL = 32, 3, 3  # starts; their first steps; how many then go on
RISEN = 0.01  # of the rise: a round that adds no more is the last


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


@dataclass(frozen=True)
class Found:
    """What a search of the ball found.

    Args:
        losses: of each batch at the worst point.
        starts: how many ascents there were.
        ends: the mean loss at the end of each that was made in full, the clean weights' first.
        tried: the mean loss that each other start had reached after its first steps.
    """

    losses: list[float]
    starts: int
    ends: list[float]
    tried: list[float]


def search(bench: Bench, ball: Ball, steps: int, starts: int, name: str) -> Found:
    """The worst point of the ball that ascents from several starts find.

    A network's loss has several maxima in a wide ball, and where an ascent ends is settled by
    where it starts. The first start is the clean weights. The second is opposite to where that
    one ended. The others lie on the surface in opposite pairs, along the steepest ascent of one
    example's loss and against it: a random direction is nearly orthogonal to all that matters,
    and these lead to more of the maxima (``docs/metrics.md`` has the measurement). Examples are
    drawn by the seed, so every model is tried with the same ones, and two models of one function
    alike; n examples give at most 2 n + 2 starts. Where no example has a loss of its own starts
    are random. Every start but the first goes ``SHORT`` steps,
    and only the ``FULL`` best of a round go on.

    Args:
        bench: the problem.
        ball: where to look.
        steps: of an ascent made in full, at least 1.
        starts: how many; 0: rounds of ``STARTS``, until one raises the best rise by no more than
            ``RISEN``. How far that goes depends on the model: not for comparisons.
        name: of the metric: the random stream is its.

    Raises:
        InputError: no steps, or a negative number of starts.
        WorkError: a loss or gradient in the ball is not finite.
    """
    if steps < 1:
        raise InputError(f"steps {steps} should be ≥ 1")
    if starts < 0:
        raise InputError(f"starts {starts} should be ≥ 1, or 0: until the best stops rising")
    losses, gradient = bench.clean_losses, bench.clean_gradient
    if ball.radius == 0:  # losses of a pass with gradients may round otherwise
        return Found(losses, 1, [bench.problem.mean(losses)], [])
    low, generator = bench.problem.mean(losses), bench.generator(name)
    cuttable = starts != 1 and bench.cuttable
    tried: list[float] = []
    with bench.moved() as clean:
        climb = functools.partial(_climb, bench, clean, ball, generator)
        origin = [torch.zeros_like(weight) for weight in clean]
        top = climb(Point(low, losses, origin, gradient), steps)
        ends = [top.value]
        opposite = [-part for part in top.u]
        fresh = itertools.chain([opposite], _starts(bench, clean, ball, generator, cuttable))
        while True:
            before, best = top.value - low, list[Point]()
            for u in itertools.islice(fresh, (starts or STARTS) - (not tried)):
                best.append(climb(_point(bench, clean, ball, u), min(SHORT, steps)))
                tried.append(best[-1].value)
                best = sorted(best, key=_value, reverse=True)[:FULL]
            if steps > SHORT:
                best = [climb(_point(bench, clean, ball, p.u), steps - SHORT) for p in best]
            ends += map(_value, best)
            top = max(top, *best, key=_value) if best else top
            if starts or top.value - low <= (1 + RISEN) * before:
                return Found(top.losses, 1 + len(tried), ends, tried)


@dataclass(frozen=True)
class Point:
    """A point of the ball: the mean loss and each batch's, where it is, the gradient there."""

    value: float
    losses: list[float]
    u: Sequence[Tensor]
    gradient: Sequence[Tensor]


def _value(point: Point) -> float:
    return point.value


def _point(bench: Bench, clean: Sequence[Tensor], ball: Ball, u: Sequence[Tensor]) -> Point:
    bench.put(clean, _moves(u, clean, ball))
    losses, gradient = bench.losses_and_gradient()
    return Point(_finite(bench, losses, ball), losses, u, gradient)


def _finite(bench: Bench, losses: Sequence[float], ball: Ball) -> float:
    value = bench.problem.mean(losses)
    if not math.isfinite(value):
        raise WorkError(f"the loss is {value} within rho {ball.radius}")
    return value


def _climb(
    bench: Bench,
    clean: Sequence[Tensor],
    ball: Ball,
    generator: torch.Generator,
    start: Point,
    steps: int,
) -> Point:
    """The best point of an ascent (APGD) of the mean loss; inside :meth:`Bench.moved`.

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
        before, value = value, _finite(bench, losses, ball)
        rises += value > before
        if value > best.value:
            best = Point(value, losses, u, gradient)
        if step in reviews:
            stuck = last_review == (length, best.value)
            last_review = (length, best.value)
            if stuck or rises < RISES * (step - reviewed):
                length /= 2
                value, losses, u, gradient = best.value, best.losses, best.u, best.gradient
            rises, reviewed = 0, step
    return best


def _starts(
    bench: Bench, clean: Sequence[Tensor], ball: Ball, generator: torch.Generator, cuttable: bool
) -> Iterator[list[Tensor]]:
    """Points of the surface in opposite pairs; see :func:`search`."""
    examples = _example_slopes(bench, clean, ball, generator)
    random = (_random(clean, generator) for _ in itertools.count())
    for slopes in examples if cuttable else random:
        up = [ball.radius * part for part in ball.steepest(slopes)]
        yield up
        yield [-part for part in up]


def _example_slopes(
    bench: Bench, clean: Sequence[Tensor], ball: Ball, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """How the loss of one example rises with each coordinate, for one example after another."""
    problem = bench.problem
    counts = [batching.examples(batch) for batch in problem.batches]
    ends = list(itertools.accumulate(counts))
    order = torch.randperm(ends[-1], generator=generator, device=generator.device)
    for index in order.tolist():
        place = bisect.bisect_right(ends, index)
        first = index - ends[place] + counts[place]
        piece = batching.between(problem.batches[place], first, first + 1)
        bench.put(clean, [torch.zeros_like(weight) for weight in clean])
        with problem.evaluating(), torch.enable_grad():
            loss = problem.batch_loss(piece)
            gradient = torch.autograd.grad(loss, bench.parameters, materialize_grads=True)
        bench.pay(gradients=1 / ends[-1])
        if math.isfinite(float(global_norm(gradient))):  # an example may have no label at all
            yield _slopes(gradient, clean, ball, generator)


def worst(
    bench: Bench, ball: Ball, steps: int, starts: int, m: int | None, name: str
) -> Measurement:
    """The mean over groups of m examples of the largest rise of each group's mean loss.

    Args:
        bench: the problem.
        ball: where to look.
        steps: of each ascent.
        starts: of each search; see :func:`search`.
        m: examples of a group, cut from the problem's in their order; 0: all in one group, as
            ``None``, which is of a metric that has no such setting.
        name: of the metric.

    Returns:
        Nats, a lower bound. The error is that of sampling groups; of a single group, that of
        sampling its batches at the perturbation found. Details, rises in nats, means over groups:
        ``bound`` (``lower``); ``from_clean``, what the first start alone finds; ``ends``, the lowest and highest end of
        the ascents made in full; ``tried``, lowest, median and highest of what the other starts
        had reached after ``SHORT`` steps; ``starts``, how many.

    Raises:
        InputError: settings out of range, or batches that should be cut and can't be.
        WorkError: a loss or gradient in the ball is not finite.
    """
    problem = bench.problem
    settings = {
        "rho": ball.radius,
        "norm": ball.norm,
        "steps": steps,
        "starts": starts,
        "seed": bench.seed,
    }
    if m is not None:
        settings["m"] = m
        if m < 0:
            raise InputError(f"m {m} should be ≥ 1, or 0 for all examples in one group")
    if not m or m >= problem.n_samples:
        found = search(bench, ball, steps, starts, name)
        details = _details([found], [problem.mean(bench.clean_losses)], [1.0])
        return dataclasses.replace(rise(bench, found.losses, settings), details=details)
    groups = batching.regrouped(problem.batches, m)
    asis = len(groups) == len(problem.batches) and all(len(group) == 1 for group in groups)
    if not asis and not bench.cuttable:
        raise InputError(
            "the loss of a batch is not the mean of its examples' losses, so it can't be cut to"
            f" groups: give batches of m = {m} examples"
        )
    names = [glob.escape(parameter) for parameter in problem.parameters]
    shares, searches, lows = [], [], []
    for group in groups:
        part = Bench(Problem(problem.model, problem.loss, group, layers=names), bench.seed)
        searches.append(search(part, ball, steps, starts, name))
        lows.append(part.problem.mean(part.clean_losses))
        shares.append(part.problem.n_samples / problem.n_samples)
        cost = part.cost
        bench.pay(forwards=shares[-1] * cost.forwards, gradients=shares[-1] * cost.gradients)
    values = [max(found.ends) - low for found, low in zip(searches, lows, strict=True)]
    measured = of_batches(bench, values, settings, shares)
    return dataclasses.replace(measured, details=_details(searches, lows, shares))


def _details(
    searches: Sequence[Found], lows: Sequence[float], shares: Sequence[float]
) -> dict[str, Any]:
    """What searches found, as means over groups of rises above each group's clean loss."""
    first = np.array([found.ends[0] for found in searches]) - lows
    ends = np.array([[min(found.ends), max(found.ends)] for found in searches])
    count = np.array([found.starts for found in searches], dtype=float)
    details: dict[str, Any] = {
        "bound": "lower",
        "starts": float(shares @ count),
        "from_clean": float(shares @ first),
        "ends": (shares @ (ends - np.array(lows)[:, None])).tolist(),
        "tried": None,
    }
    if all(found.tried for found in searches):
        tried = [np.quantile(np.array(found.tried), [0, 0.5, 1]) for found in searches]
        details["tried"] = (shares @ (np.array(tried) - np.array(lows)[:, None])).tolist()
    return details


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
    return _random(clean, generator)


def _random(clean: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [
        torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device) for w in clean
    ]
