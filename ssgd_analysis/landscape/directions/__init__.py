"""Directions in weight space: one tensor for each parameter."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature import HessianOperator, eigenpairs
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import flattened, grouped

Direction = list[Tensor]
NORMALIZATIONS = ("filter", "layer", "none")


def random_directions(
    problem: Problem, count: int, *, seed: int, repeat: int = 0
) -> list[Direction]:
    """Independent Gaussian directions, the same raw numbers for every problem of equal shapes.

    Args:
        problem: whose parameters to match.
        count: how many.
        seed: of the command.
        repeat: number of the sample, for bands over several directions.
    """
    generator = seeds.generator(seed, "directions", repeat)
    return [
        [
            torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device, p.dtype)
            for p in problem.parameters.values()
        ]
        for _ in range(count)
    ]


def eigen_directions(
    problem: Problem, count: int, *, seed: int, progress: Progress = SILENT
) -> list[Direction]:
    """Eigenvectors of the Hessian, the largest eigenvalue's first."""
    operator = HessianOperator(problem.model, problem.loss, problem.batches)
    generator = seeds.generator(seed, "eigen directions", device=operator.device)
    spectrum = eigenpairs(operator, count, tol=1e-3, generator=generator, progress=progress)
    if spectrum.vectors.shape[1] < count:
        raise InputError(f"the model has only {spectrum.vectors.shape[1]} directions, not {count}")
    return [_split(problem, vector) for vector in spectrum.vectors.T]


def trajectory_directions(
    problem: Problem, path: Sequence[dict[str, Tensor]], count: int
) -> list[Direction]:
    """Principal axes of the way that training took to the present weights.

    Args:
        problem: at the weights to centre on.
        path: named weights of kept checkpoints.
        count: how many axes.

    Raises:
        InputError: too few distinct checkpoints.

    Reference:
        Li et al. 2018 (arXiv 1712.09913), section 7.1: PCA of w_i − w_final.
    """
    centre = _flat(problem.parameters, problem)
    steps = torch.stack([_flat(weights, problem) - centre for weights in path]).double()
    steps = steps[steps.norm(dim=1) > 0]
    if len(steps) < count:
        raise InputError(
            f"the trajectory needs at least {count} kept checkpoints besides the one shown:"
            " train with --save-every"
        )
    _, _, axes = torch.linalg.svd(steps, full_matrices=False)
    return [_split(problem, axis) for axis in axes[:count]]


def normalized(problem: Problem, directions: list[Direction], how: str) -> list[Direction]:
    """Orthogonalise directions and give them their length.

    With ``filter`` or ``layer``, each filter or layer of a direction gets the norm of the
    weights' own (Li et al. 2018, section 4); vectors (biases, normalisation) do not move, as
    there. A second direction is made orthogonal to the first within each filter or layer, so
    the plane is not skewed and the norms still hold. With ``none`` each direction has unit L2
    norm over all parameters, so that a coordinate is a distance.

    Args:
        problem: at the weights to centre on.
        directions: one or two.
        how: ``filter``, ``layer`` or ``none``.

    Returns:
        New directions.

    Raises:
        InputError: an unknown normalisation.
    """
    if how not in NORMALIZATIONS:
        raise unknown("normalization", how, NORMALIZATIONS)
    if how == "none":
        flat = [flattened(direction) for direction in directions]
        return [_split(problem, row[0]) for row in _orthonormal([row[None] for row in flat])]
    weights = list(problem.parameters.values())
    columns: list[Direction] = [[] for _ in directions]
    for index, weight in enumerate(weights):
        rows = _orthonormal([grouped(direction[index], how) for direction in directions])
        size = grouped(weight.detach(), how).norm(dim=1, keepdim=True) * (weight.ndim > 1)
        for column, row in zip(columns, rows, strict=True):
            column.append((row * size).reshape(weight.shape))
    return columns


def _orthonormal(blocks: list[Tensor]) -> list[Tensor]:
    """Gram-Schmidt between tensors (groups, entries), each group by itself; unit rows.

    A group of one entry has no second direction of its own: there it stays as it is.
    """
    done: list[Tensor] = []
    for block in blocks:
        free = block
        for other in done:
            if block.shape[1] > 1:
                free = free - other * (free * other).sum(dim=1, keepdim=True)
        done.append(free / free.norm(dim=1, keepdim=True).clamp_min(1e-30))
    return done


def _flat(weights: Mapping[str, Tensor], problem: Problem) -> Tensor:
    """The problem's parameters out of named weights, as one vector."""
    parts = [weights[name].detach().to(p.device, p.dtype) for name, p in problem.parameters.items()]
    return flattened(parts)


def _split(problem: Problem, vector: Tensor) -> Direction:
    return problem.split(vector.to(problem.device, problem.dtype))
