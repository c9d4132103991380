"""Directions whose quotients are known, so that estimates need to be made of the rest only."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.curvature.sampling import Quotients, quotients
from ssgd_analysis.errors import InputError


@dataclass(frozen=True)
class Deflation:
    """Orthonormal U: tr H = Σ uᵀHu + tr((I − UUᵀ) H (I − UUᵀ)), whatever U is.

    Args:
        vectors: U, shape (P, m); m can be zero.
        quotients: uᵀH_b u of each batch b and column u.
    """

    vectors: Tensor
    quotients: Quotients

    @property
    def free(self) -> int:
        """Dimension of the rest, P − m."""
        return self.vectors.shape[0] - self.vectors.shape[1]

    def project(self, block: Tensor) -> Tensor:
        """The part of a block (P, K) that is orthogonal to U."""
        for _ in range(2 if self.vectors.shape[1] else 0):
            block = block - self.vectors @ (self.vectors.T @ block)
        return block

    def values(self) -> np.ndarray:
        """The quotients of the whole, shape (m,)."""
        return self.quotients.mean()


def deflation(
    operator: Operator, vectors: Tensor | None, known: Quotients | None = None
) -> Deflation:
    """Deflation by given vectors.

    Args:
        operator: shape (P, P).
        vectors: orthonormal, shape (P, m); ``None``: nothing is known.
        known: their quotients; computed, for m products, if ``None``.

    Raises:
        InputError: vectors that are not orthonormal.
    """
    if vectors is None:
        empty = torch.empty(operator.shape[0], 0, dtype=operator.dtype, device=operator.device)
        return Deflation(empty, Quotients(np.ones(1), np.zeros((1, 0))))
    error = vectors.T @ vectors - torch.eye(
        vectors.shape[1], dtype=vectors.dtype, device=vectors.device
    )
    if vectors.shape[1] and float(error.abs().max()) > 1e-3:
        raise InputError("the vectors to deflate by should be orthonormal")
    if known is None:
        known = quotients(operator, vectors)[1][0]
    return Deflation(vectors, known)
