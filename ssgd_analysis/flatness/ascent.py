"""The search for the worst point of a ball of perturbations, shared by all worst cases."""

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.ball import Ball, BallPoint, climb, grads_of, point_at, random_grads
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches, rise
from ssgd_analysis.weights import global_norm

STARTS, SHORT, FULL = 32, 3, 3  # starts; their first steps; how many then go on
RISEN = 0.01  # of the rise: a round that adds no more is the last


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


def search(context: MetricContext, ball: Ball, steps: int, starts: int, name: str) -> Found:
    """The worst point of the ball that ascents from several starts find.

    A network's loss has several maxima in a wide ball, and where an ascent ends is settled by
    where it starts. The first start is the clean weights. The second is opposite to where that
    one ended. The others lie on the surface in opposite pairs, along the steepest ascent of one
    example's loss and against it: a random direction is nearly orthogonal to all that matters,
    and these lead to more of the maxima (``docs/metrics.md`` has the measurement). Examples are
    drawn by the seed, so every model is tried with the same ones, and two models of one function
    alike; n examples give at most 2 n + 2 starts. Where no example has a loss of its own starts
    are random. Every start but the first goes ``SHORT`` steps, and only the ``FULL`` best of a
    round go on.

    Args:
        context: the problem.
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
        raise InputError(
            f"starts {starts} should be ≥ 1, or 0 to go on until the best value stops rising"
        )
    losses, gradient = context.clean_losses, context.clean_gradient
    if ball.radius == 0:  # losses of a pass with gradients may round otherwise
        return Found(losses, 1, [context.problem.mean(losses)], [])
    low, generator = context.problem.mean(losses), context.generator(name)
    alone = starts != 1 and context.divisible  # so that an example has a loss of its own
    tried: list[float] = []
    with context.moved() as clean:
        ascend = functools.partial(climb, context, clean, ball, generator)
        origin = [torch.zeros_like(weight) for weight in clean]
        top = ascend(BallPoint(low, losses, origin, gradient), steps)
        ends = [top.value]
        opposite = [-part for part in top.u]
        fresh = itertools.chain([opposite], _starts(context, clean, ball, generator, alone))
        while True:
            before, best = top.value - low, list[BallPoint]()
            for u in itertools.islice(fresh, (starts or STARTS) - (not tried)):
                best.append(ascend(point_at(context, clean, ball, u), min(SHORT, steps)))
                tried.append(best[-1].value)
                best = sorted(best, key=_value, reverse=True)[:FULL]
            if steps > SHORT:
                best = [ascend(point_at(context, clean, ball, p.u), steps - SHORT) for p in best]
            ends += map(_value, best)
            top = max(top, *best, key=_value) if best else top
            if starts or top.value - low <= (1 + RISEN) * before:
                return Found(top.losses, 1 + len(tried), ends, tried)


def _value(point: BallPoint) -> float:
    return point.value


def _starts(
    context: MetricContext,
    clean: Sequence[Tensor],
    ball: Ball,
    generator: torch.Generator,
    alone: bool,
) -> Iterator[list[Tensor]]:
    """Points of the surface in opposite pairs; see :func:`search`."""
    examples = _example_grads(context, clean, ball, generator)
    random = (random_grads(clean, generator) for _ in itertools.count())
    for grads in examples if alone else random:
        up = [ball.radius * part for part in ball.steepest(grads)]
        yield up
        yield [-part for part in up]


def _example_grads(
    context: MetricContext, clean: Sequence[Tensor], ball: Ball, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """How the loss of one example rises with each coordinate, for one example after another."""
    problem = context.problem
    counts = [problem.examples(batch) for batch in problem.batches]
    ends = list(itertools.accumulate(counts))
    order = torch.randperm(ends[-1], generator=generator, device=generator.device)
    for example in order.tolist():
        index = bisect.bisect_right(ends, example)
        first = example - ends[index] + counts[index]
        piece = batching.between(problem.batches[index], first, first + 1, counts[index])
        context.put(clean, [torch.zeros_like(weight) for weight in clean])
        with problem.evaluating(), torch.enable_grad():
            loss = problem.batch_loss(piece)
            gradient = torch.autograd.grad(loss, context.parameters, materialize_grads=True)
        context.pay(gradients=1 / ends[-1])
        if math.isfinite(float(global_norm(gradient))):  # an example may have no label at all
            yield grads_of(gradient, clean, ball, generator)


def worst(
    context: MetricContext, ball: Ball, steps: int, starts: int, m: int | None, name: str
) -> Measurement:
    """The mean over groups of m examples of the largest rise of each group's mean loss.

    Args:
        context: the problem.
        ball: where to look.
        steps: of each ascent.
        starts: of each search; see :func:`search`.
        m: examples of a group, cut from the problem's in their order; 0: all in one group, as
            ``None``, which is of a metric that has no such setting.
        name: of the metric.

    Returns:
        Nats, a lower bound. The error is that of sampling groups; of a single group, that of
        sampling its batches at the perturbation found. Details, rises in nats, means over groups:
        ``from_clean``, what the first start alone finds; ``ends``, the lowest and highest end of
        the ascents made in full; ``tried``, lowest, median and highest of what the other starts
        had reached after ``SHORT`` steps; ``starts``, how many; ``bound``: ``lower``.

    Raises:
        InputError: settings out of range, or batches that should be cut and can't be.
        WorkError: a loss or gradient in the ball is not finite.
    """
    problem = context.problem
    settings = {
        "rho": ball.radius,
        "norm": ball.norm,
        "steps": steps,
        "starts": starts,
        "seed": context.seed,
    }
    if m is not None:
        settings["m"] = m
        if m < 0:
            raise InputError(f"m {m} should be ≥ 1, or 0 for all examples in one group")
    if not m or m >= problem.n_samples:
        found = search(context, ball, steps, starts, name)
        details = _details([found], [problem.mean(context.clean_losses)], [1.0])
        return dataclasses.replace(rise(context, found.losses, settings), details=details)
    groups = batching.regrouped(problem.batches, m, map(problem.examples, problem.batches))
    asis = len(groups) == len(problem.batches) and all(len(group) == 1 for group in groups)
    if not asis and not context.divisible:
        raise InputError(
            "the loss of a batch is not the mean of its examples' losses, so it can't be cut to"
            f" groups: give batches of m = {m} examples"
        )
    shares, searches, lows = [], [], []
    for group in groups:
        part = MetricContext(problem.with_batches(group), context.seed)
        searches.append(search(part, ball, steps, starts, name))
        lows.append(part.problem.mean(part.clean_losses))
        shares.append(part.problem.weight / problem.weight)
        cost = part.cost
        context.pay(forwards=shares[-1] * cost.forwards, gradients=shares[-1] * cost.gradients)
    values = [max(found.ends) - low for found, low in zip(searches, lows, strict=True)]
    measured = of_batches(context, values, settings, shares)
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
