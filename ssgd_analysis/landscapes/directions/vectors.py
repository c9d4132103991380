"""A user's own directions."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions.direction import Direction
from ssgd_analysis.problem import Problem

Vector = Mapping[str, Tensor] | Tensor  # one tensor a parameter, or all P entries in one


def given_directions(problem: Problem, vectors: Sequence[Vector], count: int) -> list[Direction]:
    """Check a user's vectors against the parameters.

    Args:
        problem: whose parameters they move.
        vectors: each a tensor for every parameter by name (a parameter that is not there does
            not move), or one tensor of P entries in the parameters' order.
        count: how many are needed.

    Raises:
        InputError: too few, of other shapes, of no parameter's name, or not finite.
    """
    if len(vectors) < count:
        raise InputError(
            f"--dims {count} needs {count} vectors, but --vectors holds {len(vectors)}"
        )
    return [_checked(problem, vector, i + 1) for i, vector in enumerate(vectors[:count])]


def _checked(problem: Problem, vector: Vector, number: int) -> Direction:
    label = f"vector {number} of --vectors"
    if isinstance(vector, Tensor):
        if vector.numel() != problem.n_parameters:
            raise InputError(
                f"{label} has {vector.numel()} entries, but the model has {problem.n_parameters}"
                " parameters"
            )
        parts = problem.split(vector.reshape(-1))
    else:
        unknown = sorted(set(vector) - set(problem.parameters))
        if unknown or not vector:
            found = f"has an entry '{unknown[0]}'" if unknown else "is empty"
            raise InputError(
                f"{label} {found}: its entries should be among {', '.join(problem.parameters)}"
            )
        parts = []
        for name, parameter in problem.parameters.items():
            part = vector.get(name, torch.zeros_like(parameter))
            if part.shape != parameter.shape:
                raise InputError(
                    f"{label}: '{name}' has shape {tuple(part.shape)}, but the parameter"
                    f" {tuple(parameter.shape)}"
                )
            parts.append(part)
    parts = [part.detach().to(problem.device, torch.float64) for part in parts]
    if not math.isfinite(sum(float(part.abs().sum()) for part in parts)):
        raise InputError(f"{label} holds numbers that are not finite")
    return parts
