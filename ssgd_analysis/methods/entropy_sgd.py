"""Entropy-SGD."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import bn_statistics
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import borrowed_weights, filters_of


@dataclass(frozen=True, kw_only=True)
class EntropySettings(MethodSettings):
    """Settings of Entropy-SGD."""

    inner_steps: int = setting(20, "L: Langevin steps, each on a minibatch of its own", minimum=1)
    inner_lr: float = setting(0.1, "η′: learning rate of the Langevin steps", minimum=0)
    inner_momentum: float = setting(0.9, "Nesterov momentum of the Langevin steps", minimum=0)
    gamma: float = setting(1e-4, "γ: pull towards w at the first step", minimum=0)
    scoping: float = setting(1e-3, "s: γ grows as (1 + s)^t", minimum=0)
    noise: float = setting(1e-4, "ε: thermal noise of the Langevin steps", minimum=0)
    average: float = setting(0.75, "share of the running mean of x′ that a step retains", minimum=0)
    bn_stats: str = setting(
        "both",
        "which passes update BatchNorm's running statistics",
        choices=("first", "both", "frozen"),
    )


class EntropySGD(Method):
    """Entropy-SGD: the optimizer steps with w − μ, μ a running mean of Langevin steps from w.

    Chaudhari et al. 2017 (arXiv 1611.01838), algorithm 1, with the authors' settings for MNIST:
    from x′ = μ = w, L times x′ ← x′ − η′ [∇f(x′) − γ (w − x′) + ε N / √(η′/2)], ∇f with Nesterov
    momentum, on a minibatch of its own; μ ← 0.75 μ + 0.25 x′. γ is absorbed in the learning rate
    of the outer step, so that a good one is near 1. γ grows with every step, as in the authors'
    Lua code; in their Python code the counter stands still. Weight decay is the base
    optimizer's, at w, and no part of the inner steps. The loss is the mean over these.
    """

    Settings = EntropySettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        parameters = [parameter for _, parameter in passes.parameters]
        self.filters = dict(zip(parameters, filters_of(passes.model, parameters), strict=True))

    @classmethod
    def passes_per_step(cls, settings: Any) -> float:
        """One for each inner step."""
        return settings.inner_steps

    @classmethod
    def minibatches(cls, settings: Any) -> int:
        """One for each inner step."""
        return settings.inner_steps

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """The local entropy; with scoping γ grows without end."""
        high = math.inf if settings.scoping else settings.gamma
        return [TrainedOn(kind="entropy", low=settings.gamma, high=high)]

    def gradient(self, batch: Batch, when: When) -> float:
        """Leave w − μ; see :meth:`Method.gradient`.

        Raises:
            InputError: fewer examples than inner steps.
        """
        chosen, passes = self.settings, self.passes
        count = chosen.inner_steps
        if passes.size(batch) < count:
            raise InputError(f"inner_steps={count} needs a minibatch of at least {count} examples")
        parameters = [parameter for _, parameter in passes.parameters]
        mean = [parameter.detach().clone() for parameter in parameters]
        speed = [torch.zeros_like(parameter) for parameter in parameters]
        losses = []
        with borrowed_weights(parameters) as clean:
            for number, part in enumerate(passes.parts(batch, count)):
                passes.optimizer.zero_grad()
                with bn_statistics(passes.model, chosen.bn_stats, number):
                    losses.append(passes.backward(part))
                with torch.no_grad():
                    self._langevin(parameters, clean, speed, when.step, number)
                    for average, parameter in zip(mean, parameters, strict=True):
                        average.lerp_(parameter, 1 - chosen.average)
        for parameter, average in zip(parameters, mean, strict=True):
            parameter.grad = parameter.detach() - average
        return sum(losses) / count

    def _langevin(
        self,
        moved: list[torch.nn.Parameter],
        clean: list[Tensor],
        speed: list[Tensor],
        step: int,
        number: int,
    ) -> None:
        """Make one inner step: x′ is ``moved``, w is ``clean``."""
        chosen, passes = self.settings, self.passes
        gamma = chosen.gamma * (1 + chosen.scoping) ** step
        heat = chosen.noise / math.sqrt(chosen.inner_lr / 2)
        generators = {
            device: seeds.generator(passes.seed, "langevin", step, number, device=device)
            for device in {parameter.device for parameter in moved}
        }
        for x, w, v in zip(moved, clean, speed, strict=True):
            grad = torch.zeros_like(x) if x.grad is None else x.grad
            v.mul_(chosen.inner_momentum).add_(grad)
            noise = torch.empty_like(x).normal_(generator=generators[x.device])
            noise = self.filters[x].still(noise)
            grad = grad + chosen.inner_momentum * v - gamma * (w - x) + heat * noise
            x.sub_(chosen.inner_lr * grad)
