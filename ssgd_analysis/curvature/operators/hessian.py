"""The Hessian of the mean loss."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, jvp

from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix, Multiply, linear_gradient


class HessianMatrix(BatchMatrix):
    """The Hessian of one batch's loss: H v = ∇ ⟨∇L, v⟩ (Pearlmutter 1994)."""

    def build_product(self, batch: Batch) -> tuple[Sequence[Tensor], Multiply]:
        """∇ ⟨∇L, v⟩ by double backward."""
        gradient = self._gradient(batch, create_graph=True)

        def multiply(vector: list[Tensor], members: Sequence[int]) -> list[Tensor]:
            chosen = [gradient[index] for index in members]
            return linear_gradient(chosen, [self.parameters[index] for index in members], vector)

        return gradient, multiply

    def functional_product(
        self, weights: Sequence[Tensor], vector: Sequence[Tensor], batch: Batch
    ) -> Sequence[Tensor]:
        """The derivative of ∇L along v, forward over reverse."""

        def loss(weights: Sequence[Tensor]) -> Tensor:
            return self.problem.loss_at(weights, batch)

        return jvp(grad(loss), (tuple(weights),), (tuple(vector),))[1]

    def difference(self, batch: Batch, move: Callable[[int], None], step: float) -> list[Tensor]:
        """(∇L(w + εv) − ∇L(w − εv)) / 2ε."""
        gradients = []
        for sign in (1, -1):
            move(sign)
            gradients.append(self._gradient(batch))
        return [(a - b) / (2 * step) for a, b in zip(*gradients, strict=True)]

    def _gradient(self, batch: Batch, create_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            self.problem.batch_loss(batch),
            self.parameters,
            create_graph=create_graph,
            materialize_grads=True,
        )


class HessianOperator(ProblemOperator):
    """H = ∇² L(w), L the mean loss over all examples, in nats per squared weight unit.

    Args:
        problem: model, loss and batches.
        options: how to multiply; by default double backward on graphs that stay in memory.

    Raises:
        InputError: see :class:`~ssgd_analysis.curvature.ProblemOperator`.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis import HessianOperator, Problem
        >>> x, y = torch.eye(2).repeat(4, 1), torch.zeros(8, 1)
        >>> problem = Problem(nn.Linear(2, 1, bias=False), nn.MSELoss(), [(x, y)])
        >>> HessianOperator(problem) @ torch.tensor([1.0, 2.0])  # (2/N) xᵀx v = v
        tensor([1., 2.])
    """

    batch_matrix = HessianMatrix
