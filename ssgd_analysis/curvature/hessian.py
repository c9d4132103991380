"""The Hessian of the mean loss, by double backward."""

from collections.abc import Callable

import torch
from torch import Tensor

from ssgd_analysis.curvature.operator import ProblemOperator, linear_gradient


class HessianOperator(ProblemOperator):
    """H = ∇² L(w), L the mean loss over all examples; product by double backward.

    H v = ∇ ⟨∇L, v⟩ (Pearlmutter 1994). Entries in nats per squared weight unit.
    """

    def _multiplier(
        self, inputs: Tensor, targets: Tensor
    ) -> Callable[[list[Tensor]], list[Tensor]]:
        loss = self.problem.batch_loss(self.problem.outputs(inputs), targets)
        gradient = torch.autograd.grad(
            loss, self.parameters, create_graph=True, materialize_grads=True
        )
        return lambda vector: linear_gradient(list(gradient), self.parameters, vector)
