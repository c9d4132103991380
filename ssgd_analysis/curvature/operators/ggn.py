"""The generalised Gauss-Newton matrix."""

import torch
from torch import Tensor
from torch.func import grad, jvp

from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.curvature.operators.gauss_newton import GaussNewtonOperator, OutputCurvature
from ssgd_analysis.curvature.operators.problem_operator import linear_gradient


class GGNOperator(GaussNewtonOperator):
    """Generalised Gauss-Newton matrix: M is the Hessian of the loss by the outputs.

    Positive semi-definite where the loss is convex in the outputs (Schraudolph 2002).
    """

    def metric(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """Double backward at the outputs."""
        outputs = outputs.requires_grad_()
        loss = self.problem.output_loss(outputs, pair(batch)[1])
        (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
        return lambda vector: linear_gradient([slope], [outputs], [vector])[0]

    def difference_metric(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """Central differences of the loss's gradient by the outputs."""
        scale = torch.finfo(outputs.dtype).eps ** (1 / 3) * max(float(outputs.norm()), 1e-3)

        def slope(values: Tensor) -> Tensor:
            values = values.detach().requires_grad_()
            loss = self.problem.output_loss(values, pair(batch)[1])
            return torch.autograd.grad(loss, values)[0]

        def metric(vector: Tensor) -> Tensor:
            size = float(vector.norm())
            if size == 0:
                return torch.zeros_like(vector)
            step = scale / size
            return (slope(outputs + step * vector) - slope(outputs - step * vector)) / (2 * step)

        return metric

    def flow_metric(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """The derivative of the loss's gradient by the outputs, along a vector."""
        slope = grad(lambda values: self.problem.output_loss(values, pair(batch)[1]))
        return lambda vector: jvp(slope, (outputs,), (vector,))[1]
