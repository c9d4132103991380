"""Nodes and weights of what random probes see of a spectrum, by Lanczos runs in lockstep."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.eigen.krylov import KrylovBasis, capacity
from ssgd_analysis.curvature.eigen.lanczos import Products, lockstep
from ssgd_analysis.curvature.estimates.deflation import Deflation
from ssgd_analysis.curvature.estimates.probes import gaussian, rademacher
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, Scatter, quotients, squared_norms
from ssgd_analysis.progress import SILENT, Progress


@dataclass(frozen=True)
class Quadrature:
    """Gauss quadrature of each probe's spectral measure on the deflated operator.

    Args:
        nodes: for each probe its Ritz values, ascending, shape (steps,).
        weights: of the nodes, shape (steps,), sum one.
        exact: whether the probe's Krylov space was exhausted.
        jacobi: diagonal and off-diagonal of each run's tridiagonal matrix, both of shape (steps,):
            the last off-diagonal entry leads out of it, and is zero where the run is exact.
        rounding: estimate of how far the products of each run are off, as a norm, shape (probes,).
        samples: zᵀHz of each projected probe z, batch by batch: Hutchinson's samples.
        lengths: ‖z‖² of each, shape (probes,): times a node's power it is zᵀHᵏz.
        scatter: of the probes and their first products.
    """

    nodes: list[np.ndarray]
    weights: list[np.ndarray]
    exact: list[bool]
    jacobi: list[tuple[np.ndarray, np.ndarray]]
    rounding: np.ndarray
    samples: Quotients
    lengths: np.ndarray
    scatter: Scatter


def quadrature(
    operator: Operator,
    rest: Deflation,
    *,
    generator: torch.Generator,
    probes: int,
    steps: int,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Quadrature:
    """Lanczos runs on (I − UUᵀ) H (I − UUᵀ) from projected Rademacher probes.

    Args:
        operator: symmetric, shape (P, P).
        rest: U.
        generator: on the operator's device.
        probes: runs; as many at once as the memory holds.
        steps: products of each run; fewer where the memory or the dimension is smaller.
        deadline: of ``time.monotonic()``; runs are not extended beyond it.
        progress: reports every product.
    """
    free = rest.free
    if not free:  # all is known: empty runs
        none, zeros = [np.zeros(0)] * probes, np.zeros(probes)
        shares = rest.quotients.shares
        own = Quotients(shares, np.zeros((len(shares), probes)))
        scatter = Scatter(rest.vectors.new_zeros(len(rest.vectors)), zeros)
        jacobi = list(zip(none, none, strict=True))
        return Quadrature(none, none, [True] * probes, jacobi, zeros, own, zeros, scatter)
    steps = min(steps, free, max(2, capacity(operator)))
    together = max(1, min(probes, capacity(operator) // steps))
    progress.start("density", probes * steps)
    found: list[_Run] = []
    samples: list[Quotients] = []
    lengths: list[np.ndarray] = []
    scatters: list[Scatter] = []
    began, spent = time.monotonic(), operator.products

    def multiply(requests: dict[int, Tensor]) -> dict[int, Tensor]:
        joint = torch.cat(list(requests.values()), dim=1)
        images = rest.project(operator @ joint)
        progress.advance(joint.shape[1])
        return dict(zip(requests, images.split(1, dim=1), strict=True))

    def late() -> bool:
        if deadline is None:
            return False
        now = time.monotonic()
        done = operator.products - spent
        left = (probes - len(found)) / together  # groups, this one among them
        return now + (now - began) / done * together > began + (deadline - began) / left

    for first in range(0, probes, together):
        signs = rademacher(operator, min(together, probes - first), generator)
        block = rest.project(signs)
        empty = block.norm(dim=0) < 1e-3  # in a few dimensions a probe can be all in span(U)
        block[:, empty] = rest.project(gaussian(operator, int(empty.sum()), generator))
        images, (own,) = quotients(operator, block)
        progress.advance(block.shape[1])
        images = rest.project(images)
        nonzero = ~empty.cpu().numpy()
        own.values[:, ~nonzero] = 0
        samples.append(own)
        lengths.append(nonzero * squared_norms(block))
        signs[:, empty] = 0
        scatters.append(Scatter.of(signs, images * ~empty))
        runs = [
            _run(probe, image, steps, late) for probe, image in zip(block.T, images.T, strict=True)
        ]
        found += lockstep(runs, multiply)
    return Quadrature(
        nodes=[run.nodes for run in found],
        weights=[run.weights for run in found],
        exact=[run.exact for run in found],
        jacobi=[run.jacobi for run in found],
        rounding=np.array([run.rounding for run in found]),
        samples=Quotients.joined(samples),
        lengths=np.concatenate(lengths),
        scatter=functools.reduce(Scatter.__add__, scatters),
    )


@dataclass(frozen=True)
class _Run:
    """One probe's part of a :class:`Quadrature`."""

    nodes: np.ndarray
    weights: np.ndarray
    exact: bool
    jacobi: tuple[np.ndarray, np.ndarray]
    rounding: float


def _run(probe: Tensor, image: Tensor, steps: int, late: Callable[[], bool]) -> Products[_Run]:
    """One Lanczos run whose first product is known."""
    basis = KrylovBasis(len(probe), steps, dtype=probe.dtype, device=probe.device)
    length = probe.norm()
    basis.take(probe / length, image / length)
    vector = basis.tail()
    while vector is not None and basis.count < steps and (basis.count < 2 or not late()):
        column = yield vector[:, None]
        basis.take(vector, column[:, 0])
        vector = basis.tail()
    values, _, coordinates = basis.ritz()
    projected = basis.projected[: basis.count, : basis.count]
    return _Run(
        nodes=values,
        weights=coordinates[0] ** 2,
        exact=vector is None,
        jacobi=(projected.diagonal(), np.append(projected.diagonal(1), basis.beta())),
        rounding=_rounding(projected, len(probe)),
    )


def _rounding(projected: np.ndarray, dimension: int) -> float:
    """How far products are off: what QᵀHQ has where exact products would leave zeros.

    Entries beside the three diagonals are errors of products along known directions. Taken as
    equally large along all P, their root mean square times √P is the length of an error.
    """
    count = len(projected)
    errors = projected[np.triu_indices(count, 2)]
    if not len(errors):
        return float(np.finfo(float).eps * np.abs(projected).max() * dimension**0.5)
    return float(np.sqrt(np.mean(errors**2) * dimension))
