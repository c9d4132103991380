"""Operators with a known spectrum."""

from collections.abc import Iterator, Sequence

import nets
import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature import Operator


def planted(values, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A full matrix with these eigenvalues."""
    values = torch.as_tensor(np.asarray(values, dtype=float))
    basis, _ = torch.linalg.qr(nets.randn(len(values), len(values), seed=seed))
    matrix = basis @ torch.diag(values) @ basis.T
    return ((matrix + matrix.T) / 2).to(dtype)


def network_like(size: int = 400, outliers: Sequence[float] = (9, 7, 5, 4, 3)) -> np.ndarray:
    """A few outliers, a bulk near zero and a small negative tail, descending."""
    draws = np.random.default_rng(0).exponential(0.05, size - len(outliers))
    draws[::10] *= -1
    return -np.sort(-np.concatenate([outliers, draws]))


class DiagonalOperator(Operator):
    """Eigenvalues on the diagonal: products cost nothing, and random starts see no difference."""

    def __init__(self, values, dtype: torch.dtype = torch.float64) -> None:
        self.entries = torch.as_tensor(np.array(values, dtype=float)).to(dtype)
        self.shape = (len(self.entries),) * 2
        self.dtype, self.device = dtype, self.entries.device

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        yield 1.0, self.entries[:, None] * block


class MeanOperator(Operator):
    """A weighted mean of matrices, each the part of one batch."""

    def __init__(self, matrices: Sequence[Tensor] | Tensor, weights: Sequence[float] = ()) -> None:
        self.matrices = list(matrices)
        self.weights = list(weights) or [1 / len(self.matrices)] * len(self.matrices)
        first = self.matrices[0]
        self.shape, self.dtype, self.device = tuple(first.shape), first.dtype, first.device

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            yield weight, matrix @ block

    def dense(self) -> Tensor:
        return sum(w * m for w, m in zip(self.weights, self.matrices, strict=True))
