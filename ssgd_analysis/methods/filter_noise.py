"""Gaussian noise in proportion to the norm of each filter: LPF-SGD, RWP and ARWP have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.noise_schedule import multiple
from ssgd_analysis.methods.points import NoisyPointsMethod
from ssgd_analysis.methods.trained_on import FILTER_NORM, TrainedOn
from ssgd_analysis.methods.when import When
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
    exclude: str = setting(
        "none", "parameters without noise: none, or 1d (biases, normalisation), type:CLASS, a.*, …"
    )
    bn_stats: str = setting(
        "both",
        "which passes update BatchNorm's running statistics",
        choices=("first", "both", "frozen"),
    )


class FilterNoiseMethod(NoisyPointsMethod):
    """Gaussian noise n with standard deviation γ‖w_f‖, f the filter; a vector is one filter."""

    Settings = FilterNoiseSettings

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """Noise in proportion to the filters' norms."""
        if not settings.noise_scale:
            return ()
        return [TrainedOn(kind="noise", law="gaussian", scale=FILTER_NORM)]

    def scale_noise(self, units: Sequence[Tensor], when: When) -> Sequence[Tensor]:
        """γ‖w_f‖ times the draw."""
        chosen = self.settings
        course = multiple(chosen.noise_schedule, chosen.noise_end, when.fraction_done)
        scale = chosen.noise_scale * course
        return [
            unit.mul_(group_norms(weight, "filter", filters)[0] * scale)
            for unit, weight, filters in zip(units, self.noisy, self.filters, strict=True)
        ]
