"""Penalising the gradient's norm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.ascent import AscentMethod, AscentSettings, leave
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.methods.when import When


@dataclass(frozen=True, kw_only=True)
class GradientPenaltySettings(AscentSettings):
    """Settings of the penalty on the gradient's norm."""

    rho: float = setting(0.1, "r, length of the finite difference, L2 norm", minimum=0)
    alpha: float = setting(0.8, "λ/r: the penalty's coefficient λ over r", minimum=0)


class GradientPenalty(AscentMethod):
    """Penalty λ‖∇L‖ by a finite difference: (1 − α) g(w) + α g(w + r g/‖g‖), α = λ/r.

    Zhao, Zhang and Hu 2022 (arXiv 2202.03599), algorithm 1; r = 0.1, α = 0.8 as in the authors'
    recipe for a wide ResNet on CIFAR. α = 1 is SAM. The loss reported is that at w, without the
    penalty. (The authors' code mixes in g/‖g‖ in place of g by default; here it is the paper's.)
    """

    Settings = GradientPenaltySettings

    @classmethod
    def passes_per_step(cls, settings: GradientPenaltySettings) -> float:
        """One at each end of the difference."""
        return 2

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """The gradient's norm, and SAM's worst case."""
        norm = [TrainedOn(kind="gradient")] if settings.alpha else []
        return [*norm, *super().trained_on(settings, lr_schedule)]

    def gradient(self, batch: Batch, when: When) -> float:
        """The mean of the two ends, by α; see :meth:`Method.gradient`."""
        rho, alpha = self.settings.rho, self.settings.alpha
        loss, parameters, grads = self.pass_at(0, batch)
        above = self.grads_above(batch, parameters, grads, rho, share=alpha)
        torch._foreach_mul_(grads, 1 - alpha)
        torch._foreach_add_(grads, above)
        leave(parameters, grads)
        return loss
