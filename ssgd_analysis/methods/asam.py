"""Adaptive sharpness-aware minimisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.methods.ascent import steepness
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.sam import SAM, SAMSettings
from ssgd_analysis.methods.trained_on import TrainedOn


@dataclass(frozen=True, kw_only=True)
class ASAMSettings(SAMSettings):
    """Settings of ASAM."""

    rho: float = setting(0.5, "radius of the ascent step, L2 norm of ε / T", minimum=0)
    eta: float = setting(0.01, "η of T = |w| + η", minimum=0)
    scaled: str = setting(
        "weights",
        "parameters with T = |w| + η, others have T = 1; weights: those so named",
        choices=("weights", "all"),
    )


class ASAM(SAM):
    """ASAM: SAM whose ascent is measured in units of the weights, ε = ρ T² g/‖T g‖.

    Kwon et al. 2021 (arXiv 2102.11600), algorithm 1. As in the authors' code T = |w| + η where a
    parameter's name holds "weight" (that of a normalisation layer too), and one elsewhere.
    """

    Settings = ASAMSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        everything = self.settings.scaled == "all"
        self.scaled = {p for name, p in passes.parameters if everything or "weight" in name}

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """A worst case within a radius relative to each weight."""
        return [TrainedOn(kind="adaptive ascent", low=settings.rho, high=settings.rho)]

    def climb(self, parameters: list[Tensor], grads: list[Tensor]) -> None:
        """Move the parameters uphill, in place; ``grads`` is used up."""
        adaptive = [i for i, parameter in enumerate(parameters) if parameter in self.scaled]
        units = [parameters[i].abs().add_(self.settings.eta) for i in adaptive]
        chosen = [grads[i] for i in adaptive]
        if adaptive:
            torch._foreach_mul_(chosen, units)
        norm = steepness(grads)
        if adaptive:
            torch._foreach_mul_(chosen, units)
        torch._foreach_mul_(grads, self.settings.rho / norm)
        torch._foreach_add_(parameters, grads)
