"""Low-pass-filter SGD."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.filter_noise import FilterNoiseMethod, FilterNoiseSettings
from ssgd_analysis.methods.points import Point, part_points


@dataclass(frozen=True, kw_only=True)
class LPFSettings(FilterNoiseSettings):
    """Settings of LPF-SGD."""

    ghost_batches: int = setting(1, "M: parts of the minibatch, each with its own noise", minimum=1)


class LowPassFilterSGD(FilterNoiseMethod):
    """LPF-SGD: mean over M parts of the minibatch of the gradients at w + n_i, n_i Gaussian.

    n_i has standard deviation γ‖w_f‖, f the filter (a 1-d parameter: its own norm), on biases
    and normalisation too: a Monte-Carlo estimate of the gradient of the loss convolved with a
    Gaussian (Bisla, Wang and Choromanska 2022, arXiv 2201.08025). Defaults are the authors' for
    ResNets on CIFAR: M = 1, γ = 0.002, constant. Those for wide ResNets are M = 8, γ = 0.0005,
    a cosine up to 15 γ: ``ghost_batches=8 noise_scale=0.0005 noise_schedule=cosine``. Every
    pass updates BatchNorm's statistics, as in the authors' code.
    """

    Settings = LPFSettings

    @classmethod
    def smallest_pass(cls, settings: Any, batch_size: int) -> int:
        """The smallest part's."""
        return batch_size // settings.ghost_batches

    def points(self, batch: Batch) -> Sequence[Point]:
        """One for each part."""
        return part_points(self.passes, batch, self.settings.ghost_batches)
