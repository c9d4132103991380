"""Gradients at noisy weights: what S-SGD and weight-noise injection share."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import POLICIES, bn_statistics
from ssgd_analysis.methods.gradient_sum import GradientSum
from ssgd_analysis.methods.task import FORWARD_SHARE, Task
from ssgd_analysis.weights import LAWS, SCALES, Noise, borrowed_weights

SCHEDULES = ("constant", "linear", "cosine", "sqrt")


@dataclass(frozen=True, kw_only=True)
class WeightNoiseSettings(MethodSettings):
    """Settings of every method that takes gradients at noisy weights."""

    noise_scale: float = setting(0.1, "size c of the noise, see noise_relative_to", minimum=0)
    noise_law: str = setting("binary", "distribution of the noise", choices=LAWS)
    noise_relative_to: str = setting(
        "filter", "c is relative to the rms of this; none: absolute", choices=SCALES
    )
    noise_schedule: str = setting(
        "constant",
        "how c moves from noise_scale to noise_end × noise_scale over training",
        choices=SCHEDULES,
    )
    noise_end: float = setting(0.0, "final size as a multiple, unless constant", minimum=0)
    spare: str = setting(
        "1d", "parameters without noise: 1d (biases, normalisation), none, or name patterns a*,b*"
    )
    bn_stats: str = setting(
        "first", "which passes update BatchNorm's running statistics", choices=POLICIES
    )


def scheduled(schedule: str, end: float, elapsed: float) -> float:
    """The multiple of the noise scale at a share ``elapsed`` of training, from 1 to ``end``."""
    way = {
        "constant": 0.0,
        "linear": elapsed,
        "cosine": (1 - math.cos(math.pi * elapsed)) / 2,
        "sqrt": math.sqrt(elapsed),
    }[schedule]
    return 1 + (end - 1) * way


def is_spared(spare: str, name: str, parameter: Tensor) -> bool:
    """Whether a parameter gets no noise; see :class:`WeightNoiseSettings`."""
    if spare == "none":
        return False
    if spare == "1d":
        return parameter.ndim < 2
    return any(fnmatchcase(name, pattern.strip()) for pattern in spare.split(","))


@contextmanager
def noisy_weights(
    parameters: Sequence[tuple[Tensor, float]],
    noise: Noise,
    *,
    sign: int,
    seed: int,
) -> Iterator[None]:
    """Move parameters to w + sign·c·noise; their exact bits come back after.

    The noise is drawn again from the seed for every pass, never stored. The price of exact
    bits is one copy of the moved parameters.

    Args:
        parameters: each with its noise scale c; those with c = 0 are left alone.
        noise: law and what c is relative to.
        sign: +1 or −1.
        seed: fixes the noise.
    """
    moved = [(parameter, scale) for parameter, scale in parameters if scale]
    generators = {
        device: torch.Generator(device).manual_seed(seed)
        for device in {parameter.device for parameter, _ in moved}
    }
    with borrowed_weights([parameter for parameter, _ in moved]):
        with torch.no_grad():
            for parameter, scale in moved:
                parameter.add_(
                    noise.sample(parameter, generators[parameter.device]), alpha=sign * scale
                )
        yield


class WeightNoiseMethod(Method):
    """Mean gradient at a few noisy points around w; the base optimizer then steps at w.

    A subclass says which points: pairs (number of the draw, sign).
    """

    Settings = WeightNoiseSettings
    POINTS: ClassVar[tuple[tuple[int, int], ...]]

    def __init__(self, task: Task, settings: MethodSettings) -> None:
        super().__init__(task, settings)
        self.noise = Noise(law=self.settings.noise_law, scale=self.settings.noise_relative_to)
        self.noisy = [
            parameter
            for name, parameter in task.parameters
            if not is_spared(self.settings.spare, name, parameter)
        ]

    @classmethod
    def passes(cls, settings: Any) -> float:
        """One at each point, and a forward pass alone for clean statistics."""
        return len(cls.POINTS) + FORWARD_SHARE * (settings.bn_stats == "clean")

    def examples_of(self, inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """The examples for each point: the same minibatch for all."""
        return [(inputs, targets)] * len(self.POINTS)

    def turn_of(self, step: int) -> tuple[int, int]:
        """The step at which a step's noise was drawn, and the sign that it turns it by."""
        return step, 1

    def gradient(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """The mean over the noisy points; see :meth:`Method.gradient`."""
        task, settings = self.task, self.settings
        factor = scheduled(settings.noise_schedule, settings.noise_end, elapsed)
        parameters = [(parameter, settings.noise_scale * factor) for parameter in self.noisy]
        if settings.bn_stats == "clean":
            with torch.no_grad():
                task.forward(inputs)
            task.examples += len(inputs) * FORWARD_SHARE
        several = len(self.POINTS) > 1
        gradients = GradientSum(p for _, p in task.parameters if several)
        losses = []
        batches = self.examples_of(inputs, targets)
        drawn_at, turn = self.turn_of(task.step)
        for index, ((draw, sign), batch) in enumerate(zip(self.POINTS, batches, strict=True)):
            gradients.take()
            seed = seeds.derive(task.seed, "weight noise", drawn_at, draw)
            with (
                bn_statistics(task.model, settings.bn_stats, index),
                noisy_weights(parameters, self.noise, sign=sign * turn, seed=seed),
            ):
                losses.append(task.backward(*batch, share=1 / len(self.POINTS)))
        gradients.give_back()
        return sum(losses) / len(losses)
