"""Directions whose quotients are known, so that estimates need to be made of the rest only."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.eigen.eigenpairs import Spectrum
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, quotients, squared_norms
from ssgd_analysis.errors import InputError


@dataclass(frozen=True)
class Deflation:
    """Orthonormal U: tr H = Σ uᵀHu + tr((I − UUᵀ) H (I − UUᵀ)), whatever U is.

    Args:
        vectors: U, shape (P, m); m can be zero.
        quotients: uᵀH_b u of each batch b and column u.
        residuals: ‖Hu − UUᵀHu‖ of each column, or more, shape (m,): zero of eigenvectors.

    Raises:
        InputError: not one quotient and one residual a vector.
    """

    vectors: Tensor
    quotients: Quotients
    residuals: np.ndarray

    def __post_init__(self) -> None:
        count = self.vectors.shape[1]
        if self.quotients.values.shape[1] != count or len(self.residuals) != count:
            raise InputError(
                f"{count} vectors to deflate by have {self.quotients.values.shape[1]} quotients and"
                f" {len(self.residuals)} residuals: give the vectors alone, or the Spectrum"
            )

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


def deflation(operator: Operator, deflate: "Tensor | Spectrum | Deflation | None") -> Deflation:
    """Deflation by some directions, with their quotients.

    Args:
        operator: shape (P, P).
        deflate: orthonormal vectors, shape (P, m), whose quotients m products find; a spectrum of
            this operator, whose largest pairs and smallest one, where it is another, are taken with
            their quotients; a deflation made before; ``None``: by nothing.

    Raises:
        InputError: vectors of another length, or not orthonormal.
    """
    if isinstance(deflate, Spectrum):
        deflate = _of_spectrum(deflate)
    vectors = deflate.vectors if isinstance(deflate, Deflation) else deflate
    if vectors is None:
        vectors = torch.empty(operator.shape[0], 0, dtype=operator.dtype, device=operator.device)
    if vectors.ndim != 2 or len(vectors) != operator.shape[0]:
        raise InputError(
            f"the vectors to deflate by have shape {tuple(vectors.shape)}: they should be the"
            f" columns of ({operator.shape[0]}, m)"
        )
    gram = vectors.T @ vectors
    error = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if len(gram) and not float(error.abs().max()) <= 1e-3:
        raise InputError("the vectors to deflate by should be orthonormal")
    if isinstance(deflate, Deflation):
        return deflate
    if not len(gram):
        return Deflation(vectors, Quotients(np.ones(1), np.zeros((1, 0))), np.zeros(0))
    images, (own,) = quotients(operator, vectors)
    away = images - vectors @ (vectors.T @ images)
    return Deflation(vectors, own, np.sqrt(squared_norms(away)))


def _of_spectrum(spectrum: Spectrum) -> Deflation:
    """By the eigenvectors found, the smallest's among them where it is another one."""
    vectors, own = spectrum.vectors, spectrum.quotients
    residuals = np.array([pair.residual_norm for pair in (*spectrum.largest, spectrum.smallest)])
    k = vectors.shape[1]
    overlap = float((vectors.T @ spectrum.smallest_vector).abs().max())
    if k == vectors.shape[0] or overlap > 0.5:
        return Deflation(vectors, own[list(range(k))], residuals[:k])
    both = torch.cat([vectors, spectrum.smallest_vector[:, None]], dim=1)
    return Deflation(both, own, residuals)
