"""Random weight perturbation, mixed with the clean gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.filter_noise import FilterNoiseMethod, FilterNoiseSettings
from ssgd_analysis.methods.points import Point
from ssgd_analysis.methods.trained_on import TrainedOn


@dataclass(frozen=True, kw_only=True)
class RWPSettings(FilterNoiseSettings):
    """Settings of RWP."""

    noise_scale: float = setting(
        0.01, "γ: standard deviation of the noise as a multiple of the filter's norm", minimum=0
    )
    noisy_share: float = setting(0.5, "α: share of the noisy gradient", minimum=0, maximum=1)
    bn_stats: str = setting(
        "first",
        "passes that update BatchNorm's statistics; first: the clean one",
        choices=("first", "both", "frozen"),
    )


class RandomWeightPerturbation(FilterNoiseMethod):
    """RWP: α g_B1(w + n) + (1 − α) g_B2(w), two minibatches a step, n Gaussian by filters.

    Li et al. 2022 (arXiv 2211.11489), γ and α as in the authors' scripts for CIFAR. A step takes
    two minibatches' examples and makes a pass over each; they are independent, so two devices
    can make them at once. Here they are made in turn, the clean one first.
    """

    Settings = RWPSettings

    @classmethod
    def passes_per_step(cls, settings: Any) -> float:
        """One over each minibatch."""
        return 2

    @classmethod
    def minibatches(cls, settings: Any) -> int:
        """One for each pass."""
        return 2

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """Noise in proportion to the filters' norms, unless its gradient has no share."""
        return super().trained_on(settings, lr_schedule) if settings.noisy_share else ()

    def points(self, batch: Batch) -> Sequence[Point]:
        """The weights w on the second minibatch, w + n on the first.

        Raises:
            InputError: a single example, which cannot be two minibatches.
        """
        total = self.passes.size(batch)
        if total < 2:
            raise InputError("a step of rwp takes two minibatches: it needs at least 2 examples")
        half, alpha = total // 2, self.settings.noisy_share
        noisy, clean = self.passes.split(batch, [half, total - half])
        return [
            Point(sign=0, share=1 - alpha, batch=clean),
            Point(share=alpha, batch=noisy),
        ]
