"""Gradients at several points around w, each with its own examples and its own share."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import bn_statistics
from ssgd_analysis.methods.gradient_sum import GradientSum
from ssgd_analysis.methods.noise_schedule import multiple
from ssgd_analysis.methods.task import Task, parts
from ssgd_analysis.weights import Filters, Noise, borrowed_weights, filters_of, unspared
from ssgd_analysis.weights.groups import group_norms


@dataclass(frozen=True, kw_only=True)
class FilterNoiseSettings(MethodSettings):
    """Settings of the methods with Gaussian noise in proportion to each filter's norm."""

    noise_scale: float = setting(
        0.002, "γ: standard deviation of the noise as a multiple of the filter's norm", minimum=0
    )
    noise_schedule: str = setting(
        "constant",
        "how γ moves from noise_scale to noise_end × noise_scale over training",
        choices=("constant", "linear", "cosine"),
    )
    noise_end: float = setting(15.0, "final γ as a multiple, unless constant", minimum=0)
    spare: str = setting(
        "none", "parameters without noise: none, or 1d (biases, normalisation), type:CLASS, a.*, …"
    )
    bn_stats: str = setting(
        "both",
        "which passes update BatchNorm's running statistics",
        choices=("first", "both", "frozen"),
    )


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where one of a step's passes is made: w + sign · n.

    Args:
        inputs: shape (B, …).
        targets: shape (B, …).
        share: of the step's gradient.
        draw: number of the draw of n within the step.
        sign: +1, −1, or 0 for w itself.
    """

    inputs: Tensor
    targets: Tensor
    share: float = 1.0
    draw: int = 0
    sign: int = 1


class NoisyPointsMethod(Method):
    """The sum, by shares, of the gradients at several points; the optimizer then steps at w.

    A subclass says which points and what noise. Its settings have ``spare`` and ``bn_stats``.
    """

    law = "gaussian"

    def __init__(self, task: Task, settings: MethodSettings) -> None:
        super().__init__(task, settings)
        named = unspared(dict(task.parameters), self.settings.spare, task.model)
        self.take(list(named.values()))

    def take(self, noisy: Sequence[nn.Parameter]) -> None:
        """Choose the parameters that get noise."""
        self.noisy = list(noisy)
        self.filters = filters_of(self.task.model, self.noisy)

    @abstractmethod
    def points(self, inputs: Tensor, targets: Tensor) -> Sequence[Point]:
        """Where the passes of one step are made."""

    @abstractmethod
    def sized(self, units: Sequence[Tensor], elapsed: float) -> Sequence[Tensor]:
        """The noise of each of ``noisy`` from a draw of mean 0 and root mean square 1."""

    def seen(self, point: Point) -> None:
        """After each pass: in ``.grad`` is its share of the gradient, and that alone."""

    def gradient(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """The sum over the points; see :meth:`Method.gradient`."""
        task = self.task
        points = self.points(inputs, targets)
        gradients = GradientSum(p for _, p in task.parameters if len(points) > 1)
        loss = 0.0
        for index, point in enumerate(points):
            gradients.take()
            with (
                bn_statistics(task.model, self.settings.bn_stats, index),
                self.moved_to(point, elapsed),
            ):
                seen = task.backward(point.inputs, point.targets, share=point.share)
            loss += point.share * seen
            self.seen(point)
        gradients.give_back()
        return loss

    @contextmanager
    def moved_to(self, point: Point, elapsed: float) -> Iterator[None]:
        """The noisy parameters stand at a point; their exact bits come back after."""
        if not point.sign:
            yield
            return
        with borrowed_weights(self.noisy):
            with torch.no_grad():
                task = self.task
                units = drawn(
                    self.noisy, self.law, task, self.filters, step=task.step, draw=point.draw
                )
                for parameter, noise in zip(self.noisy, self.sized(units, elapsed), strict=True):
                    parameter.add_(noise, alpha=point.sign)
            yield


def drawn(
    parameters: Sequence[Tensor],
    law: str,
    task: Task,
    filters: Sequence[Filters],
    *,
    step: int,
    draw: int = 0,
) -> list[Tensor]:
    """One draw of mean 0 and root mean square 1 for each parameter, fixed by seed and step.

    The same as S-SGD's and WNI's of the same number at the same step.
    """
    seed = seeds.derive(task.seed, "weight noise", step, draw)
    return Noise(law=law, scale="none").draw(parameters, [1.0] * len(parameters), seed, filters)


class FilterNoiseMethod(NoisyPointsMethod):
    """Gaussian noise n with standard deviation γ‖w_f‖, f the filter, of a vector its own norm."""

    Settings = FilterNoiseSettings

    def sized(self, units: Sequence[Tensor], elapsed: float) -> Sequence[Tensor]:
        """γ‖w_f‖ times the draw."""
        chosen = self.settings
        scale = chosen.noise_scale * multiple(chosen.noise_schedule, chosen.noise_end, elapsed)
        return [
            unit.mul_(group_norms(weight, "filter", filters)[0] * scale)
            for unit, weight, filters in zip(units, self.noisy, self.filters, strict=True)
        ]


def ghost_points(inputs: Tensor, targets: Tensor, count: int) -> list[Point]:
    """Noise of its own for each of ``count`` parts of the minibatch; together one pass.

    Raises:
        InputError: fewer examples than parts.
    """
    if len(inputs) < count:
        raise InputError(f"ghost_batches={count} needs a batch size of at least {count}")
    return [
        Point(inputs=some, targets=theirs, share=len(some) / len(inputs), draw=draw)
        for draw, (some, theirs) in enumerate(parts(inputs, targets, count))
    ]
