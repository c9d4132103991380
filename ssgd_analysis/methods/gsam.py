"""Surrogate-gap guided sharpness-aware minimisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.ascent import AscentMethod, AscentSettings, inner, leave, steepness
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.methods.when import When


@dataclass(frozen=True, kw_only=True)
class GSAMSettings(AscentSettings):
    """Settings of GSAM."""

    rho: float = setting(0.05, "radius of the ascent step, L2 norm over all parameters", minimum=0)
    alpha: float = setting(0.4, "share of the gradient's part that leaves g_p alone", minimum=0)
    rho_schedule: str = setting(
        "constant",
        "lr: the radius falls with the learning rate, from rho at its peak to rho_min at zero",
        choices=("constant", "lr"),
    )
    rho_min: float = setting(0.0, "radius at a learning rate of zero, unless constant", minimum=0)


class GSAM(AscentMethod):
    """GSAM: SAM's gradient g_p, less α × the part of g that is perpendicular to g_p.

    Zhuang et al. 2022 (arXiv 2203.08065), algorithm 1: descending g_p lowers the perturbed loss,
    ascending the perpendicular part of g narrows its gap to the loss without changing it.
    α = 0.4 is that of the authors' CIFAR example, where the ascent is adaptive with ρ = 2; here
    it is the paper's plain one, with SAM's ρ. The loss reported is that at w.
    """

    Settings = GSAMSettings

    @classmethod
    def passes_per_step(cls, settings: GSAMSettings) -> float:
        """One to climb, one at the top."""
        return 2

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """A worst case within the radii of the schedule."""
        low = settings.rho
        if settings.rho_schedule != "constant":
            low = min(low, settings.rho_min)
        return [TrainedOn(kind="ascent", low=low, high=settings.rho)]

    def radius(self, when: When) -> float:
        """ρ of the step."""
        settings = self.settings
        if settings.rho_schedule == "constant":
            return settings.rho
        return settings.rho_min + (settings.rho - settings.rho_min) * when.lr_share

    def gradient(self, batch: Batch, when: When) -> float:
        """g_p − α (g − its projection on g_p); see :meth:`Method.gradient`."""
        loss, parameters, grads = self.pass_at(0, batch)
        above = self.grads_above(batch, parameters, grads, self.radius(when))
        length = steepness(above)
        along = inner(grads, above) / length / length
        alpha = self.settings.alpha
        found = list(torch._foreach_mul(above, 1 + alpha * along))
        torch._foreach_add_(found, grads, alpha=-alpha)
        leave(parameters, found)
        return loss
