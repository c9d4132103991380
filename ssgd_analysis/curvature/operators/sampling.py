"""The error that comes from having measured on a sample of examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.operators.operator import Operator


def weighted_stderr(weights: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Standard error of a weighted mean of independent batch values.

    Args:
        weights: each batch's share of the examples, shape (batches,), sum one.
        values: shape (batches, …).

    Returns:
        Shape (…), or ``None`` with fewer than two batches. For equal shares it is the usual
        s/√batches; for unequal ones the unbiased form, as the variance of a batch mean is
        inverse to its share.
    """
    count = len(weights)
    if count < 2:
        return None
    shares = weights.reshape(-1, *[1] * (values.ndim - 1))
    mean = (shares * values).sum(axis=0)
    return np.sqrt((shares * (values - mean) ** 2).sum(axis=0) / (count - 1))


@dataclass(frozen=True)
class Quotients:
    """Numbers of several vectors or probes, batch by batch; a mean over batches is the whole's.

    Args:
        shares: each batch's share of the examples, shape (batches,).
        values: shape (batches, K).
    """

    shares: np.ndarray
    values: np.ndarray

    def mean(self) -> np.ndarray:
        """Over batches, shape (K,)."""
        return self.shares @ self.values

    def stderr(self) -> np.ndarray | None:
        """Sampling error of each mean, shape (K,); ``None`` with one batch."""
        return weighted_stderr(self.shares, self.values)

    @classmethod
    def joined(cls, parts: Sequence["Quotients"]) -> "Quotients":
        """The columns of several, over the same batches, side by side."""
        return cls(parts[0].shares, np.concatenate([part.values for part in parts], axis=1))

    def __getitem__(self, columns: Sequence[int]) -> "Quotients":
        """The same for some columns."""
        return Quotients(self.shares, self.values[:, list(columns)])


@dataclass(frozen=True)
class Scatter:
    """How z ∘ Mz scatters over Rademacher probes z, and with it Hutchinson's estimate.

    The variance of zᵀMz is 2 (‖M‖²_F − Σ M_ii²), twice the total variance of the P entries of
    z ∘ Mz, whose mean is the diagonal of M. A few probes know it far better than from their few
    numbers zᵀMz: one that missed a large eigenvalue has a small image, too.

    Args:
        total: Σ z ∘ Mz over the probes, shape (P,).
        squares: ‖Mz‖² of each, which is ‖z ∘ Mz‖², shape (probes,).
    """

    total: Tensor
    squares: np.ndarray

    @classmethod
    def of(cls, probes: Tensor, images: Tensor) -> "Scatter":
        """Of probes z and images Mz, columns of shape (P, probes)."""
        return cls((probes * images).sum(dim=1), squared_norms(images))

    def __add__(self, other: "Scatter") -> "Scatter":
        """Of the probes of both."""
        return Scatter(self.total + other.total, np.concatenate([self.squares, other.squares]))

    def variance(self) -> float:
        """Unbiased estimate of the variance of zᵀMz; zero of fewer than two probes."""
        count = len(self.squares)
        if count < 2:
            return 0.0
        mean = float((self.total / count).square().sum(dtype=torch.float64))
        return max(0.0, 2 * count / (count - 1) * (float(self.squares.mean()) - mean))


def squared_norms(block: Tensor) -> np.ndarray:
    """‖v‖² of each column of a block (P, K), in float64."""
    return block.square().sum(dim=0, dtype=torch.float64).cpu().numpy()


def quotients(
    operator: Operator, block: Tensor, blocks: Sequence[slice] = (slice(None),)
) -> tuple[Tensor, list[Quotients]]:
    """The product with a block, and each batch's ⟨v, H_b v⟩ of its columns.

    Args:
        operator: shape (P, P).
        block: shape (P, K).
        blocks: parts of the P entries; the inner products are taken over each alone.

    Returns:
        H times the block, shape (P, K), and the quotients of each block.
    """
    total = torch.zeros_like(block)
    shares, rows = [], []
    for share, part in operator.parts(block):
        total.add_(part, alpha=share)
        shares.append(share)
        inner = block * part
        rows.append([inner[rows].sum(dim=0, dtype=torch.float64).cpu().numpy() for rows in blocks])
    return total, [Quotients(np.array(shares), np.array(own)) for own in zip(*rows, strict=True)]
