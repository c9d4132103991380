"""Gradients at noisy weights: what S-SGD and weight-noise injection share."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import noise_schedule
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import POLICIES, bn_statistics
from ssgd_analysis.methods.gradient_sum import GradientSum
from ssgd_analysis.methods.per_sample import COMPILED, per_sample_noise, perturbable
from ssgd_analysis.methods.task import FORWARD_SHARE, Task
from ssgd_analysis.weights import (
    LAWS,
    PLAIN,
    SCALES,
    Filters,
    Noise,
    borrowed_weights,
    filters_of,
    unspared,
)

NOISE_PER = ("step", "layer", "sample")
RANKS = ("same", "different")

Move = Callable[[int, int], None]  # (seed of a draw, sign): the noise of the next pass
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WeightNoiseSettings(MethodSettings):
    """Settings of every method that takes gradients at noisy weights."""

    noise_scale: float = setting(0.1, "size c of the noise, see noise_relative_to", minimum=0)
    noise_law: str = setting("binary", "distribution of the noise", choices=LAWS)
    noise_relative_to: str = setting(
        "filter", "c is relative to the rms of this; none: absolute", choices=SCALES
    )
    noise_per: str = setting(
        "step",
        "one noise of all weights; of one layer, drawn anew each time; of each example",
        choices=NOISE_PER,
    )
    noise_schedule: str = setting(
        "constant",
        "how c moves from noise_scale to noise_end × noise_scale; lr: as the learning rate does",
        choices=(*noise_schedule.SCHEDULES, "lr"),
    )
    noise_end: float = setting(0.0, "final size as a multiple, unless constant or lr", minimum=0)
    noise_start: float = setting(0.0, "share of training before which steps are SGD's", minimum=0)
    noise_stop: float = setting(1.0, "share of training after which steps are SGD's", minimum=0)
    spare: str = setting(
        "1d", "parameters without noise: none, or 1d (biases, normalisation), type:CLASS, a.*, …"
    )
    ranks: str = setting("same", "whether several processes draw the same noise", choices=RANKS)
    bn_stats: str = setting(
        "first", "which passes update BatchNorm's running statistics", choices=POLICIES
    )

    def __post_init__(self) -> None:
        """Check the span of the noise too."""
        super().__post_init__()
        if not self.noise_start <= self.noise_stop <= 1:
            raise InputError(
                f"noise_start={self.noise_start} and noise_stop={self.noise_stop}"
                " should be shares of training, 0 ≤ start ≤ stop ≤ 1"
            )


def scheduled(settings: WeightNoiseSettings, elapsed: float, rate: float = 1.0) -> float:
    """The multiple of the noise scale at some point of training; 0 where there is no noise.

    Args:
        settings: the schedule runs from ``noise_start`` to ``noise_stop``.
        elapsed: share of training done.
        rate: learning rate there, as a share of its peak.
    """
    begin, stop = settings.noise_start, settings.noise_stop
    if elapsed < begin or (elapsed >= stop and stop < 1):
        return 0.0
    if settings.noise_schedule == "lr":
        return rate
    along = (elapsed - begin) / (stop - begin) if stop > begin else 0.0
    return noise_schedule.multiple(settings.noise_schedule, settings.noise_end, along)


@contextmanager
def moving_weights(
    parameters: Sequence[tuple[Tensor, float]],
    noise: Noise,
    layers: Sequence[Sequence[int]] | None = None,
    filters: Sequence[Filters] = (),
) -> Iterator[Move]:
    """Lend parameters to be moved from one noisy point to the next; their exact bits come back.

    The noise is never stored: at w − n after w + n the weights are mirrored at the clean ones,
    which their exact bits need anyway.

    Args:
        parameters: each with its noise scale c; those with c = 0 are left alone.
        noise: law and what c is relative to.
        layers: places in ``parameters``; given, each draw moves one of these groups only.
        filters: how each of the parameters divides into filters; default: along axis 0.

    Yields:
        A function of (seed, sign): it moves to w + sign · c · noise of that seed.
    """
    filters = filters or [PLAIN] * len(parameters)
    noisy = [place for place, (_, scale) in enumerate(parameters) if scale]
    weights = [parameters[place][0].detach() for place in noisy]
    scales = [parameters[place][1] for place in noisy]
    point: tuple[int, int] | None = None
    with borrowed_weights(weights) as clean:

        def move(seed: int, sign: int) -> None:
            nonlocal point
            last, point = point, (seed, sign)
            if not weights or last == point:
                return
            if last == (seed, -sign):
                torch._foreach_neg_(weights)
                torch._foreach_add_(weights, clean, alpha=2)
                return
            if last is not None:
                torch._foreach_copy_(weights, clean)
            chosen = list(range(len(weights)))
            if layers is not None:
                layer = set(layers[seeds.derive(seed, "layer") % len(layers)])
                chosen = [i for i, place in enumerate(noisy) if place in layer]
            moved = [weights[i] for i in chosen]
            if moved:
                theirs = [filters[noisy[i]] for i in chosen]
                drawn = noise.draw(moved, [sign * scales[i] for i in chosen], seed, theirs)
                torch._foreach_add_(moved, drawn)

        yield move


def by_layer(names: Sequence[str]) -> list[list[int]]:
    """Places of parameters, those of one module together."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name.rpartition(".")[0], []).append(place)
    return list(groups.values())


def learning_rate_share(task: Task) -> float:
    """The learning rate as a share of its peak: the task's, or the first one that was seen."""
    rate = float(task.optimizer.param_groups[0]["lr"])
    if task.peak_lr is None:
        task.peak_lr = rate
    return rate / task.peak_lr if task.peak_lr else 0.0


class WeightNoiseMethod(Method):
    """Mean gradient at a few noisy points around w; the base optimizer then steps at w.

    Before ``noise_start``, after ``noise_stop`` and at scale zero a step is SGD's, one pass.
    A subclass says which points: in ``POINTS``, pairs (number of the draw, sign), or where they
    depend on the settings in :meth:`points`. It may replace :meth:`turn_of`, :meth:`scale`,
    :meth:`examples_of` and :meth:`passes_with_noise` besides.
    """

    Settings = WeightNoiseSettings
    POINTS: ClassVar[tuple[tuple[int, int], ...]]

    def __init__(self, task: Task, settings: MethodSettings) -> None:
        super().__init__(task, settings)
        chosen = self.settings
        self.noise = Noise(law=chosen.noise_law, scale=chosen.noise_relative_to)
        self.parameters = [parameter for _, parameter in task.parameters]
        named = unspared(dict(task.parameters), chosen.spare, task.model)
        self.noisy = list(named.values())
        self.filters = filters_of(task.model, self.noisy)
        self.layers = by_layer(list(named)) if chosen.noise_per == "layer" and named else None
        if chosen.noise_per == "sample":
            self.products = perturbable(task.model, self.noisy)
            reached = {id(layer.weight) for layer in self.products}
            rest = [name for name, parameter in named.items() if id(parameter) not in reached]
            if rest:
                log.warning(
                    "noise_per=sample: no noise on %s, whose products it cannot reach",
                    ", ".join(rest),
                )

    @classmethod
    def points(cls, settings: Any) -> Sequence[tuple[int, int]]:
        """Where a step takes gradients: pairs (number of the draw, sign)."""
        return cls.POINTS

    @classmethod
    def passes_with_noise(cls, settings: Any) -> float:
        """One at each point, and a forward pass alone for clean statistics."""
        return len(cls.points(settings)) + FORWARD_SHARE * (settings.bn_stats == "clean")

    @classmethod
    def passes(cls, settings: Any) -> float:
        """The mean over training of a noisy step's passes and the one of a step without noise."""
        noisy = settings.noise_stop - settings.noise_start if settings.noise_scale else 0.0
        return 1 + noisy * (cls.passes_with_noise(settings) - 1)

    def examples_of(self, inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """The examples for each point: the same minibatch for all."""
        return [(inputs, targets)] * len(self.points(self.settings))

    def turn_of(self, step: int) -> tuple[int, int]:
        """The step at which a step's noise was drawn, and the sign that it turns it by."""
        return step, 1

    def scale(self, elapsed: float) -> float:
        """The size c of the noise now; 0 where the step shall be SGD's."""
        settings = self.settings
        tied = settings.noise_schedule == "lr"
        rate = learning_rate_share(self.task) if tied else 1.0
        return settings.noise_scale * scheduled(settings, elapsed, rate)

    def stream(self, step: int, draw: int) -> int:
        """The seed of one draw; by rank, where ranks are to differ."""
        rank = self.task.rank if self.settings.ranks == "different" else 0
        return seeds.derive(self.task.seed, "weight noise", step, draw, *[rank] * bool(rank))

    def moving(self, scale: float) -> AbstractContextManager[Move]:
        """Where the noise acts while the passes are made."""
        if self.settings.noise_per == "sample":
            scales = [scale] * len(self.products)
            task = self.task
            if task.compiled is not None:
                raise InputError(COMPILED)
            return per_sample_noise(task.model, self.products, self.noise, scales, task.rank)
        noisy = [(parameter, scale) for parameter in self.noisy]
        return moving_weights(noisy, self.noise, self.layers, self.filters)

    def gradient(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """The mean over the noisy points; see :meth:`Method.gradient`."""
        task, policy = self.task, self.settings.bn_stats
        scale = self.scale(elapsed)
        if not scale:
            with bn_statistics(task.model, policy if policy == "frozen" else "both", 0):
                return task.backward(inputs, targets)
        if policy == "clean":
            with torch.no_grad():
                task.forward(inputs)
            task.examples += len(inputs) * FORWARD_SHARE
        points = self.points(self.settings)
        parts = self.examples_of(inputs, targets)
        sizes = [part.shape[0] for part, _ in parts]
        shares = [size / sum(sizes) for size in sizes]
        # Equal shares are a factor of the sum: one for each pass costs two small kernels more.
        factor = shares[0] if len(set(shares)) == 1 else 1.0
        gradients = GradientSum(self.parameters if len(points) > 1 else ())
        step, turn = self.turn_of(task.step)
        loss = 0.0
        with self.moving(scale) as move:
            for index, (draw, sign) in enumerate(points):
                gradients.take()
                move(self.stream(step, draw), sign * turn)
                share = shares[index]
                with bn_statistics(task.model, policy, index):
                    loss += share * task.backward(*parts[index], share=share / factor)
        gradients.give_back(factor)
        return loss
