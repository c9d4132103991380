"""Adaptive random weight perturbation, mixed with the clean gradient."""

from dataclasses import dataclass

from ssgd_analysis.methods.arwp import AdaptiveNoiseMethod, AdaptiveSettings
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.rwp import RandomWeightPerturbation, RWPSettings


@dataclass(frozen=True, kw_only=True)
class MixedARWPSettings(AdaptiveSettings, RWPSettings):
    """Settings of m-ARWP."""

    noise_scale: float = setting(
        0.015, "σ: standard deviation of the noise as a multiple of the filter's norm", minimum=0
    )


class MixedAdaptiveRWP(RandomWeightPerturbation, AdaptiveNoiseMethod):
    """m-ARWP: λ g_B1(w + n) + (1 − λ) g_B2(w), two minibatches a step, n as in ARWP.

    Li et al. 2024 (arXiv 2404.00357); λ = 0.5 is ``noisy_share``, σ the authors' for the mixed
    method, and η and β are those of ARWP. BatchNorm's statistics come from the clean pass alone,
    as in their code.
    """

    Settings = MixedARWPSettings
