"""A direction in weight space: one tensor for each parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.problem import Problem
from ssgd_analysis.settings.landscape import NORMALIZATIONS
from ssgd_analysis.weights import filters_of, flattened, grouped, ungrouped

Direction = list[Tensor]
PARALLEL = 1e-7  # sine of an angle that is rounding of float32
NORMALISING = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def normalized_directions(
    problem: Problem, directions: Sequence[Direction], normalization: str, biases: str | None = None
) -> list[Direction]:
    """Orthogonalise directions and give them their length.

    With ``filter`` or ``layer``, each filter or layer of a direction gets the norm of the
    weights' own (Li et al. 2018, section 4). A second direction is made orthogonal to the first
    within each filter or layer, so the plane is not skewed and the norms still hold. With
    ``none`` each direction has unit L2 norm over all parameters, so that a coordinate is a
    distance. It is computed in float64: in float32 nearly parallel filters would stay skewed.

    Args:
        problem: at the weights to centre on.
        directions: one or two.
        normalization: ``filter``, ``layer`` or ``none``.
        biases: ``zero`` or ``keep`` biases (all vectors) and the parameters of normalisation
            layers, each as one group; default: ``keep`` with ``none``, else ``zero``.

    Returns:
        New directions, as the parameters are (device, dtype).

    Raises:
        InputError: an unknown normalisation, a direction of length zero, or two that are parallel.
    """
    if normalization not in NORMALIZATIONS:
        raise unknown("normalization", normalization, NORMALIZATIONS)
    zero = (biases or ("keep" if normalization == "none" else "zero")) == "zero"
    fixed = _biases(problem) if zero else set()
    doubles = [
        [
            torch.zeros_like(part, dtype=torch.float64, device=problem.device)
            if name in fixed
            else part.to(problem.device, torch.float64)
            for name, part in zip(problem.parameters, direction, strict=True)
        ]
        for direction in directions
    ]
    if normalization == "none":
        rows = _orthonormal([flattened(direction)[None] for direction in doubles])
        columns = [problem.split(row[0]) for row in rows]
    else:
        columns = [[] for _ in directions]
        weights = list(problem.parameters.values())
        for index, own in enumerate(filters_of(problem.model, weights)):
            weight = own.moving(weights[index].detach().double())
            rows = _orthonormal(
                [grouped(direction[index], normalization, own) for direction in doubles]
            )
            size = grouped(weight, normalization, own).norm(dim=1, keepdim=True)
            for column, row in zip(columns, rows, strict=True):
                column.append(ungrouped(row * size, weight.shape, normalization, own))
    for number, column in enumerate(columns):
        if any(bool(part.any()) for part in column):
            continue
        raise InputError(
            "the second direction is parallel to the first, so they span no plane: use --dims 1"
            if number
            else "the direction has length zero: nothing moves along it"
            + (" (--biases keep would move the biases)" if zero else "")
        )
    return like(problem, columns)


def _biases(problem: Problem) -> set[str]:
    """Names of vectors, and of what belongs to normalisation layers."""
    norms = {
        id(parameter)
        for module in problem.model.modules()
        if isinstance(module, NORMALISING)
        for parameter in module.parameters(recurse=False)
    }
    return {n for n, p in problem.parameters.items() if p.ndim < 2 or id(p) in norms}


def _orthonormal(blocks: list[Tensor]) -> list[Tensor]:
    """Gram-Schmidt between tensors (groups, entries), each group by itself; unit rows.

    A row is zero where nothing is left: in a group of one entry, which has no second direction.
    Twice is enough (Giraud et al. 2005): once leaves what cancellation left along the other.
    """
    done: list[Tensor] = []
    for block in blocks:
        free = _unit(block)
        for other in done:
            rest = free - other * (free * other).sum(dim=1, keepdim=True)
            left = rest.norm(dim=1, keepdim=True)
            rest = _unit(rest)
            rest = rest - other * (rest * other).sum(dim=1, keepdim=True)
            free = _unit(rest) * (left > PARALLEL)
        done.append(free)
    return done


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)


def like(problem: Problem, directions: Sequence[Sequence[Tensor]]) -> list[Direction]:
    """Directions on the device and in the precision of the parameters."""
    weights = list(problem.parameters.values())
    return [
        [part.to(w.device, w.dtype) for part, w in zip(direction, weights, strict=True)]
        for direction in directions
    ]


def inner_product(a: Direction, b: Direction) -> float:
    """The inner product over all parameters, in float64."""
    return sum(
        float(x.double().flatten() @ y.double().flatten()) for x, y in zip(a, b, strict=True)
    )
