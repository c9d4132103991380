"""Positive semi-definite relatives of the Hessian: Jᵀ M J with J the outputs' Jacobian."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ssgd_analysis.curvature.operator import ProblemOperator, linear_gradient


class GaussNewtonOperator(ProblemOperator):
    """Jᵀ M J: J is the Jacobian of a batch's outputs by the weights, M a metric on outputs.

    J v by double backward with a dummy cotangent, then M, then one backward for Jᵀ.
    """

    @abstractmethod
    def _metric(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """M for one batch, for detached ``outputs`` that require gradients."""

    def _multiplier(
        self, inputs: Tensor, targets: Tensor
    ) -> Callable[[list[Tensor]], list[Tensor]]:
        outputs = self.problem.outputs(inputs)
        metric = self._metric(outputs.detach().requires_grad_(), targets)
        dummy = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, self.parameters, dummy, create_graph=True, materialize_grads=True
        )

        def multiply(vector: list[Tensor]) -> list[Tensor]:
            (pushed,) = linear_gradient(list(pulled), [dummy], vector)
            return linear_gradient([outputs], self.parameters, [metric(pushed)])

        return multiply


class GGNOperator(GaussNewtonOperator):
    """Generalised Gauss-Newton matrix: M is the Hessian of the loss by the outputs.

    Positive semi-definite where the loss is convex in the outputs (Schraudolph 2002).
    """

    def _metric(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        loss = self.problem.batch_loss(outputs, targets)
        (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
        return lambda vector: linear_gradient([slope], [outputs], [vector])[0]


class FisherOperator(GaussNewtonOperator):
    """Empirical Fisher matrix: the mean over examples of g gᵀ, g an example's loss gradient.

    Labels are the data's, not drawn from the model. With s_i the gradient of example i's loss
    by its outputs, M maps u to s_i ⟨s_i, u_i⟩ / B; the loss must be a mean of terms that each
    see one example (the first axis of the outputs).
    """

    def _metric(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        loss = self.problem.batch_loss(outputs, targets)
        (slope,) = torch.autograd.grad(loss, outputs)
        batch = len(outputs)
        rows = slope.reshape(batch, -1) * batch  # (B, outputs of an example): s_i

        def metric(vector: Tensor) -> Tensor:
            inner = (rows * vector.reshape(batch, -1)).sum(dim=1, keepdim=True)
            return (rows * inner / batch).reshape(outputs.shape)

        return metric
