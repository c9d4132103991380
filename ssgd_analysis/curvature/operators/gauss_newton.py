"""Positive semi-definite relatives of the Hessian: Jᵀ M J with J the outputs' Jacobian."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import jvp, vjp

from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix, Multiply, linear_gradient
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

OutputCurvature = Callable[[Tensor], Tensor]  # M, by its product with a tensor like the outputs


class GaussNewtonMatrix(BatchMatrix):
    """Jᵀ M J: J is the Jacobian of a batch's outputs by the weights, M a matrix on outputs.

    Raises:
        InputError: a loss ``(model, batch)``, which hides the outputs.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        if problem.takes_model:
            raise InputError(
                "Gauss-Newton and Fisher matrices need the outputs: give a loss whose parameters"
                " are (outputs, targets), or use --operator hessian"
            )

    @abstractmethod
    def output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """M for one batch by autograd, for detached ``outputs``, shape (B, …)."""

    @abstractmethod
    def functional_output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """The same by ``torch.func``."""

    def build_product(self, batch: Batch) -> tuple[Sequence[Tensor], Multiply]:
        """J v by double backward with a dummy cotangent, then M, then one backward for Jᵀ."""
        outputs = self.problem.outputs(pair(batch)[0])
        curvature = self.output_curvature(outputs.detach(), batch)
        dummy = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, self.parameters, dummy, create_graph=True, materialize_grads=True
        )

        def multiply(vector: list[Tensor], members: Sequence[int]) -> list[Tensor]:
            chosen = [pulled[index] for index in members]
            (pushed,) = linear_gradient(chosen, [dummy], vector)
            weights = [self.parameters[index] for index in members]
            return linear_gradient([outputs], weights, [curvature(pushed)])

        return pulled, multiply

    def functional_product(
        self, weights: Sequence[Tensor], vector: Sequence[Tensor], batch: Batch
    ) -> Sequence[Tensor]:
        """J v in forward mode, M, and Jᵀ in reverse mode."""
        inputs, _ = pair(batch)

        def outputs(weights: Sequence[Tensor]) -> Tensor:
            return self.problem.outputs_at(weights, inputs)

        values, pull = vjp(outputs, tuple(weights))[:2]
        pushed = jvp(outputs, (tuple(weights),), (tuple(vector),))[1]
        curvature = self.functional_output_curvature(values.detach(), batch)
        return pull(curvature(pushed))[0]

    def difference(self, batch: Batch, move: Callable[[int], None], step: float) -> list[Tensor]:
        """J v by central differences of the outputs; Jᵀ by one backward."""
        inputs, _ = pair(batch)
        with torch.no_grad():
            move(1)
            ahead = self.problem.outputs(inputs)
            move(-1)
            pushed = (ahead - self.problem.outputs(inputs)) / (2 * step)
        move(0)
        outputs = self.problem.outputs(inputs)
        curvature = self.difference_output_curvature(outputs.detach(), batch)
        return linear_gradient([outputs], self.parameters, [curvature(pushed)])

    def difference_output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """M for differences: without second derivatives, where there are any in it."""
        return self.output_curvature(outputs, batch)
