"""Stochastic gradient Langevin dynamics."""

import math
from dataclasses import dataclass

import torch

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import PLAIN, filters_of


@dataclass(frozen=True, kw_only=True)
class SGLDSettings(MethodSettings):
    """Settings of SGLD."""

    temperature: float = setting(
        1e-3, "T: the noise of a step has variance 2 η T; 1/N samples the posterior", minimum=0
    )


class SGLD(Method):
    """SGLD: the base optimizer's step, then noise of variance 2 η T on every weight.

    Welling and Teh 2011 (ICML), with the loss as the mean over the examples: their step
    size is ε = 2 η / N, so that η g is their drift and N(0, 2 η T) with T = 1/N their noise; N
    is the number of training examples, and weight decay λ is a Gaussian prior of precision λ N.
    η is each parameter group's learning rate of the moment. The law that is sampled is the
    posterior, in the limit of small η, for SGD without momentum only; with another base
    optimizer it is Langevin-like noise. The default T is our choice, 1/N for a thousand examples.
    """

    Settings = SGLDSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        parameters = [parameter for _, parameter in passes.parameters]
        self.filters = dict(zip(parameters, filters_of(passes.model, parameters), strict=True))

    def gradient(self, batch: Batch, when: When) -> float:
        """That at w; see :meth:`Method.gradient`."""
        return self.passes.backward(batch)

    def step(self, batch: Batch, when: When) -> float:
        """The base optimizer's step and the noise."""
        loss = super().step(batch, when)
        if self.settings.temperature:
            self._heat(when.step)
        return loss

    @torch.no_grad()
    def _heat(self, step: int) -> None:
        passes = self.passes
        generators: dict[torch.device, torch.Generator] = {}
        for group in passes.optimizer.param_groups:
            size = math.sqrt(2 * float(group["lr"]) * self.settings.temperature)
            for parameter in group["params"]:
                if not parameter.requires_grad:
                    continue
                device = parameter.device
                if device not in generators:
                    generators[device] = seeds.generator(
                        passes.seed, "langevin", step, device=device
                    )
                noise = torch.empty_like(parameter).normal_(generator=generators[device])
                parameter.add_(self.filters.get(parameter, PLAIN).still(noise), alpha=size)
