"""Uphill steps from w: what SAM and its kin share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import bn_statistics
from ssgd_analysis.methods.gradient_sum import refuse_sparse
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.weights import borrowed_weights, global_norm

SMALLEST = 1e-12  # a norm below counts as this, so that a zero gradient climbs nowhere


@dataclass(frozen=True, kw_only=True)
class AscentSettings(MethodSettings):
    """Settings of every method that climbs before it takes its gradient."""

    bn_stats: str = setting(
        "first",
        "passes that update BatchNorm's statistics; first: the clean one",
        choices=("first", "both", "frozen"),
    )


class AscentMethod(Method):
    """Takes a gradient at w, climbs along it, and takes another one there."""

    Settings = AscentSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.parameters = [parameter for _, parameter in passes.parameters]

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """A worst case within the radius ``rho``."""
        return [TrainedOn(kind="ascent", low=settings.rho, high=settings.rho)]

    def pass_at(
        self, index: int, batch: Batch, share: float = 1.0
    ) -> tuple[float, list[Tensor], list[Tensor]]:
        """A forward-backward pass.

        Args:
            index: 0 at w, above 0 uphill: only BatchNorm's statistics depend on it.
            batch: the minibatch: ``(inputs, targets)``, or what a loss of (model, batch) takes.
            share: factor of the gradient.

        Returns:
            The loss; the parameters with a gradient; their gradients. ``.grad`` is ``None`` after.
        """
        with bn_statistics(self.passes.model, self.settings.bn_stats, index):
            loss = self.passes.backward(batch, share=share)
        parameters: list[Tensor] = []
        grads: list[Tensor] = []
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameters.append(parameter)
                grads.append(parameter.grad)
                parameter.grad = None
        refuse_sparse(grads)
        return loss, parameters, grads

    def grads_above(
        self,
        batch: Batch,
        parameters: list[Tensor],
        grads: list[Tensor],
        rho: float,
        *,
        share: float = 1.0,
    ) -> list[Tensor]:
        """``share`` × the gradient at w + ρ g/‖g‖, for each of the parameters.

        Args:
            batch: the minibatch: ``(inputs, targets)``, or what a loss of (model, batch) takes.
            parameters: that move; their exact bits come back.
            grads: g, one for each; unchanged.
            rho: length of the step, L2 norm over all parameters.
            share: factor of the result.
        """
        with borrowed_weights(parameters):
            with torch.no_grad():
                moves = torch._foreach_mul(grads, rho / steepness(grads))
                torch._foreach_add_(parameters, moves)
                del moves
            _, reached, found = self.pass_at(1, batch, share)
        by_parameter = dict(zip(reached, found, strict=True))
        return [by_parameter[p] if p in by_parameter else torch.zeros_like(p) for p in parameters]


def steepness(grads: list[Tensor]) -> Tensor:
    """The norm of a gradient over all parameters, never zero; a scalar tensor."""
    norm = global_norm(grads)
    return norm.clamp_min(max(SMALLEST, torch.finfo(norm.dtype).tiny))  # float16 has no 1e-12


def inner(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Inner product over all parameters; a scalar tensor."""
    return torch.stack([product.sum() for product in torch._foreach_mul(first, second)]).sum()


def leave(parameters: list[Tensor], grads: list[Tensor]) -> None:
    """Leave a gradient in ``.grad``."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
