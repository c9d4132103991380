"""Gradients at noisy weights: what S-SGD and weight-noise injection share."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import noise_schedule
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import POLICIES, bn_statistics
from ssgd_analysis.methods.moving import NOISE_PER, WeightMover
from ssgd_analysis.methods.passes import FORWARD_SHARE, Passes
from ssgd_analysis.methods.per_sample import COMPILED
from ssgd_analysis.methods.points import (
    MoveTo,
    Point,
    mean_loss,
    moving_to_points,
    noise_seed,
    sum_over_points,
)
from ssgd_analysis.methods.trained_on import TrainedOn, noise_of_size
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import LAWS, SCALES, Noise, filters_of, included

NOISE_ACROSS_RANKS = ("same", "different")
# the settings that move the size of the noise through training; at the defaults here they do not
TIMING = ("noise_schedule", "noise_start", "noise_stop")

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
    exclude: str = setting(
        "1d", "parameters without noise: none, or 1d (biases, normalisation), type:CLASS, a.*, …"
    )
    noise_across_ranks: str = setting(
        "same", "whether several processes draw the same noise", choices=NOISE_ACROSS_RANKS
    )
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


def scheduled(settings: WeightNoiseSettings, when: When) -> float:
    """The multiple of the noise scale at some point of training; 0 where there is no noise.

    Args:
        settings: the schedule runs from ``noise_start`` to ``noise_stop``.
        when: point of the training.
    """
    begin, stop, done = settings.noise_start, settings.noise_stop, when.fraction_done
    if done < begin or (done >= stop and stop < 1):
        return 0.0
    if settings.noise_schedule == "lr":
        return when.lr_share
    along = (done - begin) / (stop - begin) if stop > begin else 0.0
    return noise_schedule.multiple(settings.noise_schedule, settings.noise_end, along)


class WeightNoiseMethod(Method):
    """Mean gradient at a few noisy points around w; the base optimizer then steps at w.

    Before ``noise_start``, after ``noise_stop`` and at scale zero a step is SGD's, one pass.
    A subclass says at which points: in ``DRAWS``, pairs (number of the draw, sign), or in
    :meth:`draws` where they depend on the settings. It may also replace :meth:`turn_of`,
    :meth:`scale`, :meth:`examples_of` and :meth:`passes_with_noise`.
    """

    Settings = WeightNoiseSettings
    DRAWS: ClassVar[tuple[tuple[int, int], ...]]

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        chosen, model = self.settings, passes.model
        noise = Noise(law=chosen.noise_law, scale=chosen.noise_relative_to)
        self.parameters = [parameter for _, parameter in passes.parameters]
        named = included(dict(passes.parameters), chosen.exclude, model)
        noisy = list(named.values())
        self.mover = WeightMover(
            noisy,
            noise,
            filters_of(model, noisy),
            per=chosen.noise_per,
            names=list(named),
            model=model,
        )
        if chosen.noise_per == "sample":
            reached = {id(layer.weight) for layer in self.mover.products}
            rest = [name for name, parameter in named.items() if id(parameter) not in reached]
            if rest:
                log.warning(
                    "noise_per=sample: %s gets no noise: no nn.Linear or convolution owns it",
                    ", ".join(rest),
                )

    @classmethod
    def draws(cls, settings: Any) -> Sequence[tuple[int, int]]:
        """Where a step takes gradients: pairs (number of the draw, sign)."""
        return cls.DRAWS

    @classmethod
    def passes_with_noise(cls, settings: Any) -> float:
        """One at each point, and a forward pass alone for clean statistics."""
        return len(cls.draws(settings)) + FORWARD_SHARE * (settings.bn_stats == "clean")

    @classmethod
    def passes_per_step(cls, settings: Any) -> float:
        """The mean over training of a noisy step's passes and the one of a step without noise."""
        noisy = settings.noise_stop - settings.noise_start if settings.noise_scale else 0.0
        return 1 + noisy * (cls.passes_with_noise(settings) - 1)

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """The noise, unless its span is empty."""
        if settings.noise_start >= settings.noise_stop:
            return ()
        schedule, end = settings.noise_schedule, settings.noise_end
        if schedule == "lr":
            schedule, end = lr_schedule, 0.0
        size, factor = settings.noise_scale, 1.0 if schedule == "constant" else end
        return noise_of_size(settings.noise_law, settings.noise_relative_to, size, factor)

    def examples_of(self, batch: Batch) -> Sequence[Batch]:
        """The examples for each point: the same minibatch for all."""
        return [batch] * len(self.draws(self.settings))

    def points(self, batch: Batch) -> Sequence[Point]:
        """Where the passes of one step are made; each counts by its number of examples."""
        parts = self.examples_of(batch)
        sizes = [self.passes.size(part) for part in parts]
        placed = zip(self.draws(self.settings), parts, sizes, strict=True)
        return [
            Point(draw=draw, sign=sign, share=size / sum(sizes), batch=part)
            for (draw, sign), part, size in placed
        ]

    def turn_of(self, step: int) -> tuple[int, int]:
        """The step at which a step's noise was drawn, and the sign that turns it."""
        return step, 1

    def scale(self, when: When) -> float:
        """The size c of the noise now; 0 where the step is SGD's."""
        return self.settings.noise_scale * scheduled(self.settings, when)

    def seed_of(self, step: int, draw: int) -> int:
        """The seed of one draw; each rank has its own where the ranks' noise differs."""
        rank = self.passes.rank if self.settings.noise_across_ranks == "different" else 0
        return noise_seed(self.passes.seed, step, draw, rank)

    def moving(self, scale: float, when: When) -> AbstractContextManager[MoveTo]:
        """Lend the weights, or the products of their layers, to be moved to the points.

        Raises:
            InputError: noise of each example for a compiled model.
        """
        if self.mover.products and self.passes.compiled is not None:
            raise InputError(COMPILED)
        step, turn = self.turn_of(when.step)
        scales = [scale] * len(self.mover.parameters)
        return moving_to_points(
            self.mover.moving(scales, self.passes.rank), partial(self.seed_of, step), turn
        )

    def gradient(self, batch: Batch, when: When) -> float:
        """The mean over the noisy points; see :meth:`Method.gradient`."""
        passes, policy = self.passes, self.settings.bn_stats
        scale = self.scale(when)
        if not scale:
            with bn_statistics(passes.model, policy if policy == "frozen" else "both", 0):
                return passes.backward(batch)
        if policy == "clean":
            passes.pass_forward(batch)
        points = self.points(batch)
        losses = sum_over_points(
            points,
            parameters=self.parameters,
            moving=self.moving(scale, when),
            statistics=lambda index: bn_statistics(passes.model, policy, index),
            run_pass=lambda point: passes.backward(point.batch, share=point.share),
        )
        return mean_loss(points, losses)
