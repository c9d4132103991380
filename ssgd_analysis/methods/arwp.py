"""Adaptive random weight perturbation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.filter_noise import FilterNoiseMethod, FilterNoiseSettings
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.points import Point
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import Filters


@dataclass(frozen=True, kw_only=True)
class AdaptiveSettings(MethodSettings):
    """Settings of what makes the perturbation adaptive."""

    eta: float = setting(0.1, "η: how much past squared gradients shrink the noise", minimum=0)
    beta: float = setting(0.99, "β: share of their sum that each step retains", minimum=0)
    shrink: str = setting(
        "code",
        "the noise's variance is divided by 1 + ηS (the authors' code) or √(1 + ηS) (their paper)",
        choices=("code", "paper"),
    )


@dataclass(frozen=True, kw_only=True)
class ARWPSettings(AdaptiveSettings, FilterNoiseSettings):
    """Settings of ARWP."""

    noise_scale: float = setting(
        0.001, "σ: standard deviation of the noise as a multiple of the filter's norm", minimum=0
    )
    noise_schedule: str = setting(
        "cosine",
        "how σ moves from noise_scale to noise_end × noise_scale over training",
        choices=("constant", "linear", "cosine"),
    )
    noise_end: float = setting(11.0, "final σ as a multiple, unless constant", minimum=0)


def summed(tensor: Tensor, filters: Filters) -> Tensor:
    """Sum of each filter, shaped to multiply the tensor; of a vector each entry is one."""
    return filters.reduced(tensor, torch.sum) if tensor.ndim > 1 else tensor


class AdaptiveNoiseMethod(FilterNoiseMethod):
    """Filter noise that shrinks where gradients have been large.

    S ← βS + Σ_f g², g the gradient at the noisy point, summed over each filter; of a 1-d
    parameter each entry has its own S. At the first step S = 0.
    """

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.squares = [
            summed(torch.zeros_like(parameter), filters)
            for parameter, filters in zip(self.noisy, self.filters, strict=True)
        ]

    def scale_noise(self, units: Sequence[Tensor], when: When) -> Sequence[Tensor]:
        """The filter noise, made smaller where gradients have been large."""
        chosen: Any = self.settings
        power = {"code": -0.5, "paper": -0.25}[chosen.shrink]
        noises = super().scale_noise(units, when)
        return [
            n * (1 + chosen.eta * s) ** power for n, s in zip(noises, self.squares, strict=True)
        ]

    def after_pass(self, point: Point) -> None:
        """Remember the squared gradient of a noisy pass."""
        if not point.sign or not point.share:
            return
        for parameter, squares, filters in zip(self.noisy, self.squares, self.filters, strict=True):
            squares.mul_(self.settings.beta)
            if parameter.grad is not None:
                grad = parameter.grad / point.share
                squares.add_(summed(grad.square(), filters))

    def state_dict(self) -> dict[str, Any]:
        """The sums of squares."""
        return {"squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        for squares, saved in zip(self.squares, state["squares"], strict=True):
            squares.copy_(saved)


class AdaptiveRandomWeightPerturbation(AdaptiveNoiseMethod):
    """ARWP: g(w + n), n Gaussian by filters, divided by √(1 + ηS), S past squared gradients.

    Li et al. 2024 (arXiv 2404.00357), settings as in the authors' script: σ grows to 11 σ along
    a cosine. Their code divides the variance by 1 + ηS; we have it at second hand that eq. 14 of
    the paper divides it by √(1 + ηS): ``shrink=paper``.
    """

    Settings = ARWPSettings

    def points(self, batch: Batch) -> Sequence[Point]:
        """The one noisy point."""
        return [Point(batch=batch)]
