"""Nodes and weights of what random probes see of a spectrum, by Lanczos runs in lockstep."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.deflation import Deflation
from ssgd_analysis.curvature.krylov import KrylovBasis, capacity
from ssgd_analysis.curvature.lanczos import Products, lockstep
from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.curvature.probes import gaussian, rademacher
from ssgd_analysis.curvature.sampling import Quotients, quotients, squared_norms
from ssgd_analysis.progress import SILENT, Progress


@dataclass(frozen=True)
class Quadrature:
    """Gauss quadrature of each probe's spectral measure on the deflated operator.

    Args:
        nodes: for each probe its Ritz values, ascending, shape (steps,).
        weights: theirs, shape (steps,), sum one.
        exact: whether the probe's Krylov space was exhausted.
        samples: zᵀHz of each projected probe z, batch by batch: Hutchinson's samples.
        lengths: ‖z‖² of each, shape (probes,): times a node's power it is zᵀHᵏz.
        squares: ‖(I − UUᵀ) Hz‖² of each, shape (probes,).
    """

    nodes: list[np.ndarray]
    weights: list[np.ndarray]
    exact: list[bool]
    samples: Quotients
    lengths: np.ndarray
    squares: np.ndarray


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
        progress: told of every product.
    """
    free = rest.free
    if not free:  # all is known: empty runs
        none, zeros = [np.zeros(0)] * probes, np.zeros(probes)
        shares = rest.quotients.shares
        own = Quotients(shares, np.zeros((len(shares), probes)))
        return Quadrature(none, none, [True] * probes, own, zeros, zeros)
    steps = min(steps, free, max(2, capacity(operator)))
    together = max(1, min(probes, capacity(operator) // steps))
    progress.start("density", probes * steps)
    found: list[tuple[np.ndarray, np.ndarray, bool]] = []
    samples: list[Quotients] = []
    lengths: list[np.ndarray] = []
    squares: list[np.ndarray] = []
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
        block = rest.project(rademacher(operator, min(together, probes - first), generator))
        empty = block.norm(dim=0) < 1e-3  # in a few dimensions a probe can be all in span(U)
        block[:, empty] = rest.project(gaussian(operator, int(empty.sum()), generator))
        images, (own,) = quotients(operator, block)
        progress.advance(block.shape[1])
        images = rest.project(images)
        kept = ~empty.cpu().numpy()
        own.values[:, ~kept] = 0
        samples.append(own)
        lengths.append(kept * squared_norms(block))
        squares.append(kept * squared_norms(images))
        runs = [
            _run(probe, image, steps, late) for probe, image in zip(block.T, images.T, strict=True)
        ]
        found += lockstep(runs, multiply)
    return Quadrature(
        nodes=[nodes for nodes, _, _ in found],
        weights=[weights for _, weights, _ in found],
        exact=[exact for _, _, exact in found],
        samples=Quotients.joined(samples),
        lengths=np.concatenate(lengths),
        squares=np.concatenate(squares),
    )


def _run(
    probe: Tensor, image: Tensor, steps: int, late: Callable[[], bool]
) -> Products[tuple[np.ndarray, np.ndarray, bool]]:
    """One Lanczos run whose first product is known; its nodes, weights, and whether exhausted."""
    basis = KrylovBasis(len(probe), steps, dtype=probe.dtype, device=probe.device)
    length = probe.norm()
    basis.take(probe / length, image / length)
    vector = basis.tail()
    while vector is not None and basis.count < steps and (basis.count < 2 or not late()):
        column = yield vector[:, None]
        basis.take(vector, column[:, 0])
        vector = basis.tail()
    values, _, coordinates = basis.ritz()
    return values, coordinates[0] ** 2, vector is None
