"""Principal axes of the path that training took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions.direction import Direction
from ssgd_analysis.problem import Problem

Weights = Mapping[str, Tensor]
STRAIGHT = 1e-12  # share of the second axis that is rounding of float32 weights: ε², some times


def trajectory_directions(
    problem: Problem, path: Sequence[Weights], count: int
) -> tuple[list[Direction], list[float]]:
    """Principal axes of the path that training took to the present weights.

    Args:
        problem: at the weights to centre on.
        path: named weights of the run's checkpoints.
        count: how many axes.

    Returns:
        The axes (float64, unit norm; the first checkpoint is on their negative side), and the
        share of Σ ‖w_i − w‖² that lies along each.

    Raises:
        InputError: too few distinct checkpoints, or a straight path where two axes are asked for.

    Reference:
        Li et al. 2018 (arXiv 1712.09913), section 7.1: PCA of w_i − w_final. The mean is not
        subtracted: the final weights are the origin.
    """
    # The K × K Gram matrix has the eigenvalues of the P × P covariance, and takes one parameter
    # at a time.
    gram = sum(s @ s.T for s in _steps(problem, path)) if path else torch.zeros(0, 0)
    assert isinstance(gram, Tensor)
    if int((gram.diagonal() > 0).sum()) < count:
        raise InputError(
            f"the trajectory needs at least {count} saved checkpoints besides the one shown:"
            " train with --save-every"
        )
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    if count > 1 and values[1] <= STRAIGHT * values[0]:
        raise InputError(
            "the trajectory is a straight line: it has no second axis, so use --dims 1"
        )
    vectors = torch.where(vectors[0] > 0, -vectors, vectors)
    turn = (vectors / values.clamp_min(1e-300).sqrt()).T[:count]
    mixed = [turn @ steps for steps in _steps(problem, path)]
    shapes = [parameter.shape for parameter in problem.parameters.values()]
    axes = [[m[i].reshape(s) for m, s in zip(mixed, shapes, strict=True)] for i in range(count)]
    total = float(values.clamp_min(0).sum())
    return axes, [float(value) / total for value in values[:count]]


@dataclass(frozen=True)
class Projection:
    """Checkpoints projected onto a line or plane.

    Args:
        coordinates: shape (K, dims).
        outside: distance of each from it, L2 over all weights, shape (K,).
    """

    coordinates: Tensor
    outside: Tensor


def projected(
    problem: Problem, path: Sequence[Weights], directions: Sequence[Direction]
) -> Projection:
    """Where the line or plane through the present weights comes nearest to each checkpoint.

    Args:
        problem: at the weights that are the origin.
        path: named weights of K checkpoints.
        directions: that span it.
    """
    axes = [
        torch.stack([part.double().flatten() for part in parts])
        for parts in zip(*directions, strict=True)
    ]
    gram = sum(axis @ axis.T for axis in axes)
    right = sum(axis @ steps.T for axis, steps in zip(axes, _steps(problem, path), strict=True))
    assert isinstance(gram, Tensor)
    assert isinstance(right, Tensor)
    coordinates = torch.linalg.solve(gram, right).T
    squares = sum(
        (steps - coordinates @ axis).square().sum(dim=1)
        for axis, steps in zip(axes, _steps(problem, path), strict=True)
    )
    assert isinstance(squares, Tensor)
    return Projection(coordinates.cpu(), squares.sqrt().cpu())


def _steps(problem: Problem, path: Sequence[Weights]) -> Iterator[Tensor]:
    """For each parameter, the steps from the present weights to each checkpoint: (K, entries)."""
    for name, parameter in problem.parameters.items():
        there = [weights[name].to(parameter.device, torch.float64).flatten() for weights in path]
        yield torch.stack(there) - parameter.detach().double().flatten()
