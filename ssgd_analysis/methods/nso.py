"""Noise-stability optimisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.points import NoisyPointsMethod, Point
from ssgd_analysis.methods.trained_on import TrainedOn, noise_of_size
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import LAWS

SMALLEST = 1e-5  # where the published log-linear schedule begins


@dataclass(frozen=True, kw_only=True)
class NSOSettings(MethodSettings):
    """Settings of NSO."""

    noise_scale: float = setting(0.01, "σ: root mean square of the noise, absolute", minimum=0)
    noise_law: str = setting("gaussian", "distribution of the noise", choices=LAWS)
    noise_schedule: str = setting(
        "constant",
        "σ over training: constant, rising from 0, or log-linearly from 1e-5",
        choices=("constant", "rising", "log-rising"),
    )
    pairs: int = setting(1, "k: draws for each step", minimum=1)
    two_point: bool = setting(True, "each draw with both signs")
    noisy_share: float = setting(1.0, "1 − λ: share of the noisy gradients", minimum=0, maximum=1)
    clean_pass: bool = setting(
        False, "a pass at w for BatchNorm's statistics also where λ = 0, as the published trainer"
    )
    exclude: str = setting("none", "parameters without noise: none, or 1d, type:CLASS, a.*, …")
    bn_stats: str = setting(
        "first",
        "passes that update BatchNorm's statistics; first: the clean one, where there is one",
        choices=("first", "both", "frozen"),
    )

    @property
    def clean(self) -> bool:
        """Whether a step has a pass at w."""
        return self.clean_pass or self.noisy_share < 1


class NoiseStabilityOptimization(NoisyPointsMethod):
    """NSO: λ g(w) + (1 − λ)/2k Σ_j [g(w + U_j) + g(w − U_j)], U_j ~ N(0, σ²I), one minibatch.

    Zhang, Li and Ju 2024 (arXiv 2306.08553). The noise is absolute and on all parameters. σ, k
    and λ = 0 are the published README's. The default is the algorithm of the paper, 2k passes,
    what S-SGD costs, with BatchNorm's statistics from the first noisy pass; the published
    trainer adds a pass at w for them (``clean_pass=true``: 2k + 1), and its noisy passes leave
    them alone. Of the published laws ``cauchy``, which has no size, and ``binomial``, which is
    not centred, are left out.
    """

    Settings = NSOSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.law = self.settings.noise_law

    @classmethod
    def passes_per_step(cls, settings: Any) -> float:
        """One for each sign of each draw, one at w if λ > 0 or asked for."""
        return settings.pairs * (1 + settings.two_point) + settings.clean

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """The noise, unless its gradients have no share."""
        if not settings.noisy_share:
            return ()
        factor = 1.0 if settings.noise_schedule == "constant" else 0.0
        return noise_of_size(settings.noise_law, "none", settings.noise_scale, factor)

    def points(self, batch: Batch) -> Sequence[Point]:
        """w, where it counts, then the pairs."""
        chosen: Any = self.settings
        signs = (1, -1) if chosen.two_point else (1,)
        share = chosen.noisy_share / (chosen.pairs * len(signs))

        def at(sign: int, share: float, draw: int = 0) -> Point:
            return Point(draw=draw, sign=sign, share=share, batch=batch)

        first = [at(0, 1 - chosen.noisy_share)] if chosen.clean else []
        return first + [at(sign, share, draw) for draw in range(chosen.pairs) for sign in signs]

    def scale_noise(self, units: Sequence[Tensor], when: When) -> Sequence[Tensor]:
        """σ times the draw."""
        sigma = self.settings.noise_scale
        if self.settings.noise_schedule == "rising":
            sigma *= when.fraction_done
        elif self.settings.noise_schedule == "log-rising" and sigma:
            sigma = SMALLEST * (sigma / SMALLEST) ** when.fraction_done
        return [unit * sigma for unit in units]
