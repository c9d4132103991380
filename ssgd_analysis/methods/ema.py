"""Exponential average of the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import recalibrate
from ssgd_analysis.methods.compose import Wrapper
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When


@dataclass(frozen=True, kw_only=True)
class EMASettings(MethodSettings):
    """Settings of the exponential average."""

    ema_decay: float = setting(0.999, "b of m ← b m + (1 − b) w", minimum=0, maximum=1)
    ema_debias: bool = setting(
        True, "the weights that an average over few steps lacks are made up for; else m starts at w"
    )
    ema_buffers: str = setting(
        "recompute",
        "BatchNorm's statistics for m: made anew by a pass over train, or averaged too",
        choices=("recompute", "average"),
    )


class EMA(Wrapper):
    """Wrapper: gives out the exponential average of the weights over all steps.

    m ← b m + (1 − b) w after each step, the training itself unchanged. With ``ema_debias`` b is
    b (1 − bᵗ⁻¹) / (1 − bᵗ) at step t, which makes m the mean of w₁ … wₜ with weights ∝ bᵗ⁻ⁱ
    exactly: a short training is not averaged with its initial weights (our choice; without it m
    starts at w₀, as ``torch.optim.swa_utils`` has it).
    """

    Settings = EMASettings
    averages = True

    def __init__(self, passes: Passes, settings: MethodSettings, inner: Method) -> None:
        super().__init__(passes, settings, inner)
        self.parameters: list[Tensor] = [parameter for _, parameter in passes.parameters]
        layers = [m for m in passes.model.modules() if isinstance(m, _BatchNorm)]
        self.layers = layers if self.settings.ema_buffers == "average" else []
        self.mean = [tensor.detach().clone() for tensor in self._tensors()]
        self.taken = 0

    def after_step(self, when: When) -> None:
        """Add the new weights to the mean."""
        self.taken += 1
        decay = self.settings.ema_decay
        weight = 1 - decay
        if self.settings.ema_debias:
            weight = weight / (1 - decay**self.taken) if decay < 1 else 1 / self.taken
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self._tensors(), weight)

    def state_dict(self) -> dict[str, Any]:
        """The mean, and of how many weights it is."""
        return {"mean": self.mean, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        torch._foreach_copy_(self.mean, state["mean"])
        self.taken = state["taken"]

    def finish(self, batches: Sequence[Batch]) -> None:
        """Put the mean into the model."""
        with torch.no_grad():
            torch._foreach_copy_(self._tensors(), self.mean)
        frozen = self.innermost.freezes_batchnorm(self.settings)
        if self.settings.ema_buffers == "recompute" and not frozen:
            recalibrate(self.passes, batches)

    def _tensors(self) -> list[Tensor]:
        """What is averaged: weights, and BatchNorm's statistics where they are (no other buffers).

        Other buffers are the model's own affair: it may replace them, or make them late.
        """
        found = [s for layer in self.layers for s in (layer.running_mean, layer.running_var)]
        return [*self.parameters, *(statistic for statistic in found if statistic is not None)]
