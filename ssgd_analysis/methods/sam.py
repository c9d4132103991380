"""Sharpness-aware minimisation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.ascent import AscentMethod, AscentSettings, leave, steepness
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.gradient_sum import GradientSum
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import borrowed_weights


@dataclass(frozen=True, kw_only=True)
class SAMSettings(AscentSettings):
    """Settings of SAM."""

    rho: float = setting(0.05, "radius of the ascent step, L2 norm over all parameters", minimum=0)
    m: int = setting(
        0, "examples, at most, that share an ascent (m-sharpness); 0: the minibatch", minimum=0
    )


class SAM(AscentMethod):
    """SAM: the gradient at w + ρ g/‖g‖, g the gradient at w, on the same minibatch.

    Foret et al. 2021 (arXiv 2010.01412), eq. 2 and algorithm 1. Weight decay is the base
    optimizer's, outside both passes. The loss reported is that at w. With ``m`` the minibatch is
    cut into parts of at most m examples, of sizes that differ by one at most; each climbs along
    its own gradient, and the mean over all examples of the gradients there is what is left:
    the paper's m-sharpness (section 4.1), which it has from parts on several devices.
    """

    Settings = SAMSettings

    @classmethod
    def passes_per_step(cls, settings: SAMSettings) -> float:
        """One to climb, one at the top."""
        return 2

    @classmethod
    def smallest_pass(cls, settings: SAMSettings, batch_size: int) -> int:
        """The smallest part's."""
        return batch_size // _parts(settings, batch_size)

    def gradient(self, batch: Batch, when: When) -> float:
        """Ascent, and the gradient there; see :meth:`Method.gradient`."""
        total = self.passes.size(batch)
        count = _parts(self.settings, total)
        if count == 1:
            return self._part(batch, 1.0)
        gradients = GradientSum(self.parameters)
        loss = 0.0
        for part in self.passes.parts(batch, count):
            gradients.take()
            share = self.passes.size(part) / total
            loss += share * self._part(part, share)
        gradients.give_back()
        return loss

    def _part(self, batch: Batch, share: float) -> float:
        """Leave ``share`` × the gradient at the top; returns the loss at w."""
        loss, parameters, grads = self.pass_at(0, batch)
        with borrowed_weights(parameters):
            with torch.no_grad():
                self.climb(parameters, grads)
            del grads  # before the next pass takes memory of its own
            _, parameters, found = self.pass_at(1, batch, share)
        leave(parameters, found)
        return loss

    def climb(self, parameters: list[Tensor], grads: list[Tensor]) -> None:
        """Move the parameters uphill, in place; ``grads`` is used up."""
        torch._foreach_mul_(grads, self.settings.rho / steepness(grads))
        torch._foreach_add_(parameters, grads)


def _parts(settings: SAMSettings, examples: int) -> int:
    return -(-examples // settings.m) if settings.m else 1
