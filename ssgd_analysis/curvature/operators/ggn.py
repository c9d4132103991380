"""The generalised Gauss-Newton matrix."""

import torch
from torch import Tensor
from torch.func import grad, jvp

from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.curvature.operators.gauss_newton import GaussNewtonMatrix, OutputCurvature
from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator
from ssgd_analysis.curvature.products.batch_matrix import linear_gradient


class GGNMatrix(GaussNewtonMatrix):
    """Jᵀ M J with M the Hessian of one batch's loss by the outputs."""

    def output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """Double backward at the outputs."""
        outputs = outputs.requires_grad_()
        loss = self.problem.output_loss(outputs, pair(batch)[1])
        (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
        return lambda vector: linear_gradient([slope], [outputs], [vector])[0]

    def difference_output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """Central differences of the loss's gradient by the outputs."""
        scale = torch.finfo(outputs.dtype).eps ** (1 / 3) * max(float(outputs.norm()), 1e-3)

        def slope(values: Tensor) -> Tensor:
            values = values.detach().requires_grad_()
            loss = self.problem.output_loss(values, pair(batch)[1])
            return torch.autograd.grad(loss, values)[0]

        def curvature(vector: Tensor) -> Tensor:
            size = float(vector.norm())
            if size == 0:
                return torch.zeros_like(vector)
            step = scale / size
            return (slope(outputs + step * vector) - slope(outputs - step * vector)) / (2 * step)

        return curvature

    def functional_output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """The derivative of the loss's gradient by the outputs, along a vector."""
        slope = grad(lambda values: self.problem.output_loss(values, pair(batch)[1]))
        return lambda vector: jvp(slope, (outputs,), (vector,))[1]


class GGNOperator(ProblemOperator):
    """Generalised Gauss-Newton matrix Jᵀ M J, M the Hessian of the loss by the outputs.

    Positive semi-definite where the loss is convex in the outputs (Schraudolph 2002).

    Args:
        problem: model, loss and batches.
        options: how to multiply; by default double backward on graphs that stay in memory.

    Raises:
        InputError: a loss ``(model, batch)``, which hides the outputs; and see
            :class:`~ssgd_analysis.curvature.ProblemOperator`.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis import GGNOperator, HessianOperator, Problem
        >>> x, y = torch.randn(8, 3), torch.arange(8) % 2
        >>> problem = Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(), [(x, y)])
        >>> v = torch.ones(8)  # of a linear model both matrices are the same
        >>> bool(torch.allclose(GGNOperator(problem) @ v, HessianOperator(problem) @ v, atol=1e-6))
        True
    """

    batch_matrix = GGNMatrix
