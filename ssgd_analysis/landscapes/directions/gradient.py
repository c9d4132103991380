"""The direction of steepest ascent, and how it turns."""

import torch

from ssgd_analysis.curvature import HessianOperator
from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions.direction import Direction
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import flattened


def gradient_directions(problem: Problem, count: int) -> list[Direction]:
    """The gradient g of the mean loss, uphill; the second axis is H g: where g turns to.

    Together they span the plane that gradient descent stays in for two steps.

    Raises:
        InputError: the gradient is zero.
    """
    gradient = problem.gradient()
    if not any(bool(part.any()) for part in gradient):
        raise InputError("the gradient is zero at these weights: it gives no direction")
    if count == 1:
        return [gradient]
    operator = HessianOperator(problem)
    flat = flattened(gradient)
    turned = operator @ (flat / torch.linalg.vector_norm(flat))
    return [gradient, problem.split(turned)]
