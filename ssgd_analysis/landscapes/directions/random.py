"""Random directions, the same for every model of equal shapes."""

import torch

from ssgd_analysis import seeds
from ssgd_analysis.landscapes.directions.direction import Direction
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import filters_of


def random_directions(
    problem: Problem, count: int, *, seed: int, repeat: int = 0
) -> list[Direction]:
    """Independent Gaussian directions, the same raw numbers for every problem of equal shapes.

    Padding rows of embeddings, which are constants, do not move.

    Args:
        problem: whose parameters to match.
        count: how many.
        seed: of the command.
        repeat: number of the sample, for bands over several directions.
    """
    generator = seeds.generator(seed, "directions", repeat)
    parameters = list(problem.parameters.values())
    filters = filters_of(problem.model, parameters)

    def raw(shape: torch.Size) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return [
        [
            own.still(raw(p.shape).to(p.device, p.dtype))
            for p, own in zip(parameters, filters, strict=True)
        ]
        for _ in range(count)
    ]
