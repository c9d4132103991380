"""Gradients at several points around w, by one loop for all methods and for ``SSGD``."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import Method, MethodSettings
from ssgd_analysis.methods.batchnorm import bn_statistics
from ssgd_analysis.methods.gradient_sum import GradientSum
from ssgd_analysis.methods.moving import Move
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import Filters, Noise, borrowed_weights, filters_of, included

LossT = TypeVar("LossT")


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where one of a step's passes is made: at w + sign · n.

    Args:
        draw: number of the draw of n within the step.
        sign: +1, −1, or 0 for w itself.
        share: of the step's gradient.
        batch: examples of the pass; ``None`` where a closure has them.
    """

    draw: int = 0
    sign: int = 1
    share: float = 1.0
    batch: Batch = None


MoveTo = Callable[[Point], None]


def sum_over_points(
    points: Sequence[Point],
    *,
    parameters: Iterable[nn.Parameter],
    moving: AbstractContextManager[MoveTo],
    statistics: Callable[[int], AbstractContextManager[None]],
    run_pass: Callable[[Point], LossT],
) -> list[LossT]:
    """Make a pass at each point, and leave the sum of the gradients in every ``.grad``.

    Args:
        points: in the order of the passes.
        parameters: those whose gradients are summed.
        moving: inside, the weights may be moved; their exact bits come back.
        statistics: the context of a pass, by its number: which BatchNorm statistics it updates.
        run_pass: makes the pass; it finds no gradient, and leaves its own in ``.grad``.

    Returns:
        What ``run_pass`` returned at each point.
    """
    gradients = GradientSum(parameters if len(points) > 1 else ())
    losses = []
    with moving as move_to:
        for index, point in enumerate(points):
            gradients.take()
            move_to(point)
            with statistics(index):
                losses.append(run_pass(point))
    gradients.give_back()
    return losses


def mean_loss(points: Sequence[Point], losses: Sequence[float]) -> float:
    """The losses at the points, weighted by their shares."""
    total = 0.0
    for point, loss in zip(points, losses, strict=True):
        total += point.share * loss
    return total


def noise_seed(seed: int, step: int, draw: int, rank: int = 0) -> int:
    """The seed of one draw of weight noise; other ranks than 0 have their own.

    Args:
        seed: of the run.
        step: number of the step.
        draw: number of the draw within the step.
        rank: of the process, where the ranks' noise differs.
    """
    return seeds.derive(seed, "weight noise", step, draw, *[rank] * bool(rank))


@contextmanager
def moving_to_points(
    moving: AbstractContextManager[Move], seed_of: Callable[[int], int], turn: int = 1
) -> Iterator[MoveTo]:
    """Let noise that is set by a seed and a sign follow points.

    Args:
        moving: gives the function of (seed, sign).
        seed_of: the seed of a draw, by its number.
        turn: −1 turns the sign of every point.
    """
    seed_of = functools.cache(seed_of)  # the two points of a pair share their draw
    with moving as move:

        def move_to(point: Point) -> None:
            move(seed_of(point.draw), point.sign * turn)

        yield move_to


class NoisyPointsMethod(Method):
    """The sum, by shares, of the gradients at several points; the optimizer then steps at w.

    A subclass says which points and what noise. Its settings have ``exclude`` and ``bn_stats``.
    """

    law = "gaussian"

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.parameters = [parameter for _, parameter in passes.parameters]
        named = included(dict(passes.parameters), self.settings.exclude, passes.model)
        self.choose_noisy(list(named.values()))

    def choose_noisy(self, noisy: Sequence[Tensor]) -> None:
        """Choose the parameters that get noise."""
        self.noisy: list[Tensor] = list(noisy)
        self.filters = filters_of(self.passes.model, self.noisy)

    @abstractmethod
    def points(self, batch: Batch) -> Sequence[Point]:
        """Where the passes of one step are made."""

    @abstractmethod
    def scale_noise(self, units: Sequence[Tensor], when: When) -> Sequence[Tensor]:
        """The noise of each of ``noisy`` from a draw of mean 0 and root mean square 1."""

    def after_pass(self, point: Point) -> None:
        """Look at a pass: ``.grad`` holds its share of the gradient, and nothing else."""

    def gradient(self, batch: Batch, when: When) -> float:
        """The sum over the points; see :meth:`Method.gradient`."""
        passes, policy = self.passes, self.settings.bn_stats
        points = self.points(batch)

        def run_pass(point: Point) -> float:
            loss = passes.backward(point.batch, share=point.share)
            self.after_pass(point)
            return loss

        losses = sum_over_points(
            points,
            parameters=self.parameters,
            moving=self.moving(when),
            statistics=lambda index: bn_statistics(passes.model, policy, index),
            run_pass=run_pass,
        )
        return mean_loss(points, losses)

    @contextmanager
    def moving(self, when: When) -> Iterator[MoveTo]:
        """Lend the noisy parameters to be moved; their exact bits come back after."""
        passes, moved = self.passes, False
        with borrowed_weights(self.noisy) as clean:

            @torch.no_grad()
            def move_to(point: Point) -> None:
                nonlocal moved
                if moved:
                    torch._foreach_copy_(self.noisy, clean)
                moved = bool(point.sign and self.noisy)
                if not moved:
                    return
                units = draw_units(
                    self.noisy, self.law, passes, self.filters, step=when.step, draw=point.draw
                )
                for parameter, noise in zip(self.noisy, self.scale_noise(units, when), strict=True):
                    parameter.add_(noise, alpha=point.sign)

            yield move_to


def draw_units(
    parameters: Sequence[Tensor],
    law: str,
    passes: Passes,
    filters: Sequence[Filters],
    *,
    step: int,
    draw: int = 0,
) -> list[Tensor]:
    """One draw of mean 0 and root mean square 1 for each parameter, fixed by seed and step.

    S-SGD and WNI use the same draw under the same number at the same step.
    """
    seed = noise_seed(passes.seed, step, draw)
    return Noise(law=law, scale="none").draw(parameters, [1.0] * len(parameters), seed, filters)


def part_points(passes: Passes, batch: Batch, count: int) -> list[Point]:
    """A point with its own noise for each of ``count`` parts of the minibatch: one pass in all.

    Raises:
        InputError: fewer examples than parts.
    """
    total = passes.size(batch)
    if total < count:
        raise InputError(f"ghost_batches={count} needs a batch size of at least {count}")
    return [
        Point(draw=draw, share=passes.size(part) / total, batch=part)
        for draw, part in enumerate(passes.parts(batch, count))
    ]
