"""Sharpness-aware minimisation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import bn_statistics
from ssgd_analysis.weights import borrowed_weights, global_norm


@dataclass(frozen=True, kw_only=True)
class SAMSettings(MethodSettings):
    """Settings of SAM."""

    rho: float = setting(0.05, "radius of the ascent step, L2 norm over all parameters", minimum=0)
    bn_stats: str = setting(
        "first",
        "passes that update BatchNorm's statistics; first: the clean one",
        choices=("first", "both", "frozen"),
    )


class SAM(Method):
    """SAM: the gradient at w + ρ g/‖g‖, g the gradient at w, on the same minibatch.

    Foret et al. 2021 (arXiv 2010.01412), eq. 2 and algorithm 1. Weight decay is the base
    optimizer's, outside both passes. The loss reported is that at w.
    """

    Settings = SAMSettings

    @classmethod
    def passes(cls, settings: SAMSettings) -> float:
        """One to climb, one at the top."""
        return 2

    def gradient(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """Ascent, and the gradient there; see :meth:`Method.gradient`."""
        task = self.task
        parameters = [parameter for _, parameter in task.parameters]
        with bn_statistics(task.model, self.settings.bn_stats, 0):
            loss = task.backward(inputs, targets)
        slopes = [(p, p.grad) for p in parameters if p.grad is not None]
        with borrowed_weights([p for p, _ in slopes]):
            with torch.no_grad():
                norm = global_norm(slope for _, slope in slopes)
                length = self.settings.rho / norm.clamp_min(1e-12)
                for parameter, slope in slopes:
                    parameter.add_(slope * length)
            task.optimizer.zero_grad()
            del slopes
            with bn_statistics(task.model, self.settings.bn_stats, 1):
                task.backward(inputs, targets)
        return loss
