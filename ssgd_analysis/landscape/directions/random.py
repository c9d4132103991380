"""Random directions, the same for every model of equal shapes."""

import torch

from ssgd_analysis import seeds
from ssgd_analysis.landscape.directions.direction import Direction
from ssgd_analysis.problem import Problem


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
