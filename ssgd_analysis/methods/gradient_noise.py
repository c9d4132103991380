"""Annealed noise on the gradient."""

import math
from dataclasses import dataclass

import torch

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import filters_of


@dataclass(frozen=True, kw_only=True)
class GradientNoiseSettings(MethodSettings):
    """Settings of gradient noise."""

    eta: float = setting(0.01, "η: variance of the noise at the first step", minimum=0)
    gamma: float = setting(
        0.55, "γ: the variance falls as (1 + t)^−γ; 0: it stays as it is", minimum=0
    )


class GradientNoise(Method):
    """Gradient noise: g(w) + N(0, σ_t² I), σ_t² = η / (1 + t)^γ, t the number of the step.

    Neelakantan et al. 2015 (arXiv 1511.06807), eq. 1, with γ = 0.55 and η from {0.01, 0.3, 1}
    recommended there. γ = 0 is isotropic noise of constant size.
    """

    Settings = GradientNoiseSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        parameters = [parameter for _, parameter in passes.parameters]
        self.filters = dict(zip(parameters, filters_of(passes.model, parameters), strict=True))

    def gradient(self, batch: Batch, when: When) -> float:
        """The noisy gradient; see :meth:`Method.gradient`."""
        chosen, passes = self.settings, self.passes
        loss = passes.backward(batch)
        if not chosen.eta:
            return loss
        size = math.sqrt(chosen.eta / (1 + when.step) ** chosen.gamma)
        reached = [p for _, p in passes.parameters if p.grad is not None]
        generators = {
            device: seeds.generator(passes.seed, "gradient noise", when.step, device=device)
            for device in {parameter.device for parameter in reached}
        }
        for parameter in reached:
            grad = parameter.grad
            assert grad is not None
            noise = torch.empty_like(grad).normal_(generator=generators[parameter.device])
            grad.add_(self.filters[parameter].still(noise), alpha=size)
        return loss
