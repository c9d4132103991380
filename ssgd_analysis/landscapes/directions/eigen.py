"""The steepest directions: eigenvectors of the Hessian's largest eigenvalues."""

from ssgd_analysis import seeds
from ssgd_analysis.curvature import Eigenpair, HessianOperator, eigenpairs
from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions.direction import Direction, like
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress


def eigen_directions(
    problem: Problem, count: int, *, seed: int, progress: Progress = SILENT
) -> tuple[list[Direction], list[Eigenpair]]:
    """Eigenvectors of the Hessian, the largest eigenvalue's first, and the eigenvalues.

    The sign of an eigenvector is free: here the largest entry is positive, so that checkpoints
    of one run are not mirrored.

    Raises:
        InputError: fewer parameters than directions.
    """
    operator = HessianOperator(problem)
    spectrum = eigenpairs(
        operator,
        count,
        tol=1e-3,
        smallest=False,
        generator=seeds.generator(seed, "eigen directions", device=operator.device),
        progress=progress,
    )
    if len(spectrum.largest) < count:
        raise InputError(
            f"--dims {count} needs {count} eigenvectors, but the model has {len(spectrum.largest)}"
        )
    signs = [vector[vector.abs().argmax()].sign() for vector in spectrum.vectors.T]
    vectors = [problem.split(s * v) for s, v in zip(signs, spectrum.vectors.T, strict=True)]
    return like(problem, vectors), spectrum.largest
