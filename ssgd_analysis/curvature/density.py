"""The spectral density of an operator, by stochastic Lanczos quadrature."""

from dataclasses import dataclass

import numpy as np
import torch

from ssgd_analysis.curvature.krylov import KrylovBasis, capacity
from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

GRID = 512


@dataclass(frozen=True)
class Density:
    """A density of eigenvalues, smoothed by a Gaussian; integrates to one.

    Args:
        grid: eigenvalues, ascending, shape (512,).
        density: share of all eigenvalues per unit, shape (512,).
        stderr: the probes' standard error at each grid point, shape (512,).
        sigma: standard deviation of the smoothing Gaussian.
        probes: Lanczos runs averaged.
        steps: products of each run.
    """

    grid: np.ndarray
    density: np.ndarray
    stderr: np.ndarray
    sigma: float
    probes: int
    steps: int


def spectral_density(
    operator: Operator,
    *,
    generator: torch.Generator,
    probes: int = 4,
    steps: int = 40,
    progress: Progress = SILENT,
) -> Density:
    """φ(t) = (1/P) Σ N(t; λ_i, σ²), estimated from a few Lanczos runs.

    Each run starts from a Rademacher vector; its Ritz values are quadrature nodes and the
    squared first components of the projected eigenvectors their weights. σ is one hundredth
    of the spectrum's width.

    Args:
        operator: symmetric, shape (P, P).
        generator: on the operator's device.
        probes: Lanczos runs, at least 2 (for the error).
        steps: products of each run, at least 2.
        progress: told of every product.

    Raises:
        InputError: too few probes or steps.

    Reference:
        Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019, section 2.
    """
    if probes < 2 or steps < 2:
        raise InputError(f"the density needs at least 2 probes and 2 steps, not {probes}, {steps}")
    n = operator.shape[0]
    steps = min(steps, n)
    steps = max(2, min(steps, capacity(n, operator.dtype))) if n > 1 else 1
    progress.start("density", probes * steps)
    nodes, weights = [], []
    for _ in range(probes):
        start = torch.empty(n, dtype=operator.dtype, device=operator.device)
        start.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        basis = KrylovBasis(n, steps, dtype=operator.dtype, device=operator.device)
        vector = start / start.norm()
        while basis.count < steps:
            basis.take(vector, operator @ vector)
            progress.advance()
            following = basis.tail()
            if following is None:
                break
            vector = following
        values, _, coordinates = basis.ritz()
        nodes.append(values)
        weights.append(coordinates[0] ** 2)
    low, high = min(v[0] for v in nodes), max(v[-1] for v in nodes)
    size = max(abs(low), abs(high), 1e-12)
    sigma = 0.01 * (high - low if high - low > 1e-6 * size else size)  # one eigenvalue: a spike
    grid = np.linspace(low - 5 * sigma, high + 5 * sigma, GRID)
    runs = np.array(
        [
            (w * np.exp(-(((grid[:, None] - v) / sigma) ** 2) / 2)).sum(axis=1)
            / (sigma * np.sqrt(2 * np.pi))
            for v, w in zip(nodes, weights, strict=True)
        ]
    )
    return Density(
        grid=grid,
        density=runs.mean(axis=0),
        stderr=runs.std(axis=0, ddof=1) / np.sqrt(probes),
        sigma=float(sigma),
        probes=probes,
        steps=steps,
    )
