"""Efficient sharpness-aware minimisation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.ascent import AscentMethod, AscentSettings, leave, steepness
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.batchnorm import bn_statistics
from ssgd_analysis.methods.passes import FORWARD_SHARE, Passes
from ssgd_analysis.methods.when import When
from ssgd_analysis.problem.loss import Loss, scalar_loss
from ssgd_analysis.weights import borrowed_weights


@dataclass(frozen=True, kw_only=True)
class ESAMSettings(AscentSettings):
    """Settings of ESAM."""

    rho: float = setting(0.05, "radius of the ascent step, L2 norm over all parameters", minimum=0)
    beta: float = setting(0.5, "share of the parameters that climb", minimum=0.01, maximum=1)
    gamma: float = setting(
        0.5, "share of the examples, those whose loss rose most", minimum=0.01, maximum=1
    )
    subset: str = setting(
        "weights",
        "what is drawn to climb: each weight by itself, or whole tensors",
        choices=("weights", "tensors"),
    )


class ESAM(AscentMethod):
    """ESAM: SAM with a random share β of the weights, and the share γ of most sharpened examples.

    Du et al. 2022 (arXiv 2110.03141). ε = (ρ/β) m ⊙ g/‖g‖ with m ~ Bernoulli(β) for each weight;
    then the gradient at w + ε over the γ B examples whose loss rose most from w to w + ε. With
    ``subset=tensors`` m is one number for each tensor and the norm is over the chosen ones, as in
    the authors' code. Passes: one at w, a forward one at w + ε, γ of one there (γ = 1 needs no
    choice, so no forward pass). At least two examples are chosen, for BatchNorm. The loss
    reported is that at w.
    """

    Settings = ESAMSettings
    needs_targets = True

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        if passes.world > 1:
            raise InputError("esam chooses in the whole minibatch: it needs a single process")

    @classmethod
    def passes_per_step(cls, settings: ESAMSettings) -> float:
        """Exact where γ × the batch size is whole."""
        return 2 if settings.gamma == 1 else 1 + FORWARD_SHARE + settings.gamma

    @classmethod
    def smallest_pass(cls, settings: ESAMSettings, batch_size: int) -> int:
        """The one over the examples whose loss rose most: γ B of them, at least two if there are.

        A hair more than γ B, so that rounding takes no example from a whole number.
        """
        return max(min(2, batch_size), int(settings.gamma * batch_size + 1e-9))

    def gradient(self, batch: Batch, when: When) -> float:
        """The gradient above, over the chosen examples; see :meth:`Method.gradient`."""
        with recorded_outputs(self.passes) as before:
            loss, parameters, grads = self.pass_at(0, batch)
        with borrowed_weights(parameters):
            with torch.no_grad():
                self._climb(parameters, grads, when.step)
            del grads
            inputs, targets = pair(batch)
            chosen = self._chosen(before, inputs, targets)
            _, parameters, found = self.pass_at(2, (inputs[chosen], targets[chosen]))
        leave(parameters, found)
        return loss

    @torch.no_grad()
    def _climb(self, parameters: list[Tensor], grads: list[Tensor], step: int) -> None:
        beta, seed = self.settings.beta, self.passes.seed
        generator = seeds.generator(seed, "esam", step, device=parameters[0].device)

        def draw(shape: Sequence[int]) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device) < beta

        if self.settings.subset == "tensors":
            for grad in grads:
                grad.mul_(draw(()))
        length = self.settings.rho / beta / steepness(grads)
        if self.settings.subset == "weights":
            for grad in grads:
                grad.mul_(draw(grad.shape))
        torch._foreach_mul_(grads, length)
        torch._foreach_add_(parameters, grads)

    @torch.no_grad()
    def _chosen(self, before: Sequence[Tensor], inputs: Tensor, targets: Tensor) -> Tensor | slice:
        """Places of the examples whose loss rose most, in order."""
        passes = self.passes
        if self.settings.gamma == 1:
            return slice(None)
        if sum(len(outputs) for outputs in before) != len(inputs):
            raise InputError("esam needs the outputs of each example by itself")
        with bn_statistics(passes.model, self.settings.bn_stats, 1):
            after = passes.forward(inputs)
        passes.count_forward(len(inputs))
        if passes.autocast:
            after = after.float()
        rise = each_loss(passes.loss, after, targets) - each_loss(
            passes.loss, torch.cat(list(before)), targets
        )
        count = self.smallest_pass(self.settings, len(inputs))
        return rise.topk(count).indices.sort().values


@contextmanager
def recorded_outputs(passes: Passes) -> Iterator[list[Tensor]]:
    """The outputs of the passes inside, as the loss is given them."""
    found: list[Tensor] = []
    loss = passes.loss

    def recording(outputs: Tensor, targets: Tensor) -> Tensor:
        found.append(outputs.detach())
        return loss(outputs, targets)

    passes.loss = recording
    try:
        yield found
    finally:
        passes.loss = loss


def each_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each example, shape (B,): the loss of a batch of this one alone.

    By contract a loss is a mean over its batch, so this holds for a stranger's too. ``vmap`` does
    all at once where the loss can be vectorised; else they are done one after the other.
    """

    def alone(output: Tensor, target: Tensor) -> Tensor:
        return scalar_loss(loss, output[None], target[None])

    try:
        return torch.func.vmap(alone)(outputs, targets)
    except (InputError, RuntimeError, ValueError):
        pairs = zip(outputs, targets, strict=True)
        return torch.stack([alone(output, target) for output, target in pairs])
