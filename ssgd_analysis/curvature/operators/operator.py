"""The contract of an operator: a symmetric linear map with a cost."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ssgd_analysis.errors import OutOfTimeError

BASIS_BYTES = 4_000_000_000  # unless a budget says less


class Operator(ABC):
    """A symmetric map of R^P that is a weighted mean of parts, one a batch of examples.

    ``operator @ v`` takes one vector (P,) or a block (P, K). ``products`` counts the columns
    multiplied so far. A basis of vectors takes ``basis_bytes`` at most, where the vectors wanted
    fit. After the ``deadline``, of ``time.monotonic()``, a product raises ``OutOfTimeError``.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    products: int = 0
    deadline: float | None = None
    basis_bytes: int = BASIS_BYTES

    @abstractmethod
    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        """For each batch its weight (they sum to one) and its product with ``block``, (P, K)."""

    def parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Each batch's weight and product, for errors over examples; counted as one product.

        Args:
            block: shape (P, K).

        Raises:
            ValueError: a shape that does not fit.
            OutOfTimeError: after the deadline.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTimeError
        if block.ndim != 2 or block.shape[0] != self.shape[0]:
            raise ValueError(f"shape {tuple(block.shape)} does not fit {self.shape}")
        self.products += block.shape[1]
        yield from self._parts(block)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with one vector (P,) or a block (P, K).

        Raises:
            ValueError: a shape that does not fit.
        """
        block = vectors[:, None] if vectors.ndim == 1 else vectors
        total = torch.zeros_like(block)
        for weight, part in self.parts(block):
            total.add_(part, alpha=weight)
        return total[:, 0] if vectors.ndim == 1 else total

    def scipy(self) -> LinearOperator:
        """The same map for scipy, on numpy arrays of the same precision."""

        def multiply(array: np.ndarray) -> np.ndarray:
            whole = np.array(array, order="C")  # torch takes no reversed or read-only arrays
            vectors = torch.as_tensor(whole, dtype=self.dtype, device=self.device)
            return (self @ vectors).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(
            self.shape,
            matvec=lambda v: multiply(v.reshape(-1)),
            rmatvec=lambda v: multiply(v.reshape(-1)),
            matmat=multiply,
            rmatmat=multiply,
            dtype=dtype,
        )


class DenseOperator(Operator):
    """A symmetric matrix as an operator, for planted spectra and small references.

    Args:
        matrix: shape (P, P), symmetric.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        yield 1.0, self.matrix @ block


class ScaledOperator(Operator):
    """D H D for a diagonal D: the same loss in the coordinates u of w = D u.

    With D = diag(|w|) its trace and eigenvalues are those of the scale-invariant metrics
    (Tsuzuku, Sato and Sugiyama 2020; Petzka et al. 2021).

    Args:
        operator: H, shape (P, P).
        diagonal: of D, shape (P,).

    Raises:
        ValueError: a diagonal of another length.
    """

    def __init__(self, operator: Operator, diagonal: Tensor) -> None:
        if diagonal.shape != operator.shape[:1]:
            raise ValueError(f"diagonal {tuple(diagonal.shape)} does not fit {operator.shape}")
        self.operator, self.diagonal = operator, diagonal.to(operator.device, operator.dtype)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.basis_bytes = operator.basis_bytes

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        for weight, part in self.operator.parts(self.diagonal[:, None] * block):
            yield weight, self.diagonal[:, None] * part
