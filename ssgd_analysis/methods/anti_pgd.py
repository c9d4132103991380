"""Anticorrelated perturbation of the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.points import draw_units
from ssgd_analysis.methods.trained_on import TrainedOn, noise_of_size
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import filters_of, included


@dataclass(frozen=True, kw_only=True)
class AntiPGDSettings(MethodSettings):
    """Settings of Anti-PGD."""

    noise_scale: float = setting(0.05, "σ: root mean square of the noise, absolute", minimum=0)
    noise_law: str = setting(
        "binary",
        "distribution of the noise: random signs, or Gaussian",
        choices=("binary", "gaussian"),
    )
    exclude: str = setting("none", "parameters without noise: none, or 1d, type:CLASS, a.*, …")


class AntiPGD(Method):
    """Anti-PGD: w ← w − η g(w) + (ξ_{t+1} − ξ_t), noise whose increments are anticorrelated.

    Orvieto et al. 2022 (arXiv 2202.02831). ξ_0 = 0, so that the weights start where other
    methods start. What training gives out is z = w − ξ, as the noise is dropped before
    evaluation; z follows z ← z − η g(z + ξ), which is one-sided weight noise, for SGD with or
    without momentum, but not with weight decay, which here acts at w. The theorem is for random
    signs; σ is the paper's for its quadratic, absolute, on all parameters.
    """

    Settings = AntiPGDSettings
    carries_noise: ClassVar[bool] = True  # from step to step: who moves the weights mixes it up

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        named = included(dict(passes.parameters), self.settings.exclude, passes.model)
        self.noisy = list(named.values())
        self.filters = filters_of(passes.model, self.noisy)
        self.carried = 0  # number of the noise that the weights carry; 0: none

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """The noise that the weights carry."""
        return noise_of_size(settings.noise_law, "none", settings.noise_scale, 1.0)

    def gradient(self, batch: Batch, when: When) -> float:
        """That at w; see :meth:`Method.gradient`."""
        return self.passes.backward(batch)

    def step(self, batch: Batch, when: When) -> float:
        """SGD's step, then the next noise in place of the last."""
        loss = super().step(batch, when)
        self._shift(-1)
        self.carried = when.step + 1
        self._shift(1)
        return loss

    def finish(self, batches: Sequence[Batch]) -> None:
        """The weights without the noise."""
        self._shift(-1)

    def state_dict(self) -> dict[str, Any]:
        """Which noise the weights carry."""
        return {"carried": self.carried}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self.carried = state["carried"]

    @torch.no_grad()
    def _shift(self, sign: int) -> None:
        """Add the noise that the weights carry, or take it away."""
        scale = self.settings.noise_scale
        if self.carried == 0 or scale == 0:
            return
        law = self.settings.noise_law
        units = draw_units(self.noisy, law, self.passes, self.filters, step=self.carried)
        for parameter, unit in zip(self.noisy, units, strict=True):
            parameter.add_(unit, alpha=sign * scale)
