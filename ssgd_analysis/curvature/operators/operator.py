"""The contract of an operator: a symmetric linear map with a cost."""

import math
import numbers
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import Self

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ssgd_analysis.curvature.products.plan import BASIS_BYTES
from ssgd_analysis.errors import InputError, OutOfTimeError


class Operator(ABC):
    """A symmetric map of R^P that is a weighted mean of parts, one a batch of examples.

    ``operator @ v`` takes one vector (P,) or a block (P, K). Sums, differences and multiples of
    operators are operators; ``operator.T`` is the operator, as it is symmetric. ``products`` counts
    the columns multiplied so far. A basis of vectors takes ``basis_bytes`` at most, where the
    vectors wanted fit. After the ``deadline``, of ``time.monotonic()``, a product raises
    ``OutOfTimeError``.

    Example:
        >>> from ssgd_analysis.curvature import DenseOperator
        >>> H = DenseOperator(torch.diag(torch.tensor([3.0, 1.0])))
        >>> (0.5 * H + H) @ torch.ones(2)
        tensor([4.5000, 1.5000])
        >>> (H - 2 * H).T @ torch.ones(2)
        tensor([-3., -1.])
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    products: int = 0
    deadline: float | None = None
    basis_bytes: int = BASIS_BYTES
    __array_ufunc__ = None  # numpy's scalars leave ``factor * operator`` to this class

    @abstractmethod
    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        """For each batch its weight (they sum to one) and its product with ``block``, (P, K)."""

    def refresh(self) -> None:  # noqa: B027 - most operators have nothing to make
        """Make what stays between products anew, if the weights have changed since."""

    @property
    def sample(self) -> Hashable:
        """Which batches the parts belong to, and their weights; ``None``: they are no sample.

        Operators with an equal sample are added batch by batch.
        """
        return None

    def parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Each batch's weight and product, for errors over examples; counted as one product.

        Args:
            block: shape (P, K), of the operator's dtype and on its device.

        Raises:
            InputError: a shape, dtype or device that does not fit.
            OutOfTimeError: after the deadline.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTimeError
        if block.ndim != 2 or block.shape[0] != self.shape[0]:
            raise InputError(f"vectors {tuple(block.shape)} do not fit an operator {self.shape}")
        if block.dtype != self.dtype or block.device != self.device:
            raise InputError(
                f"the vectors are {_kind(block)}, the operator {_kind(self)}:"
                " v.to(operator.device, operator.dtype)"
            )
        self.products += block.shape[1]
        yield from self._parts(block)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with one vector (P,) or a block (P, K).

        Raises:
            InputError: a shape, dtype or device that does not fit.
            OutOfTimeError: after the deadline.
        """
        if not isinstance(vectors, Tensor):
            return NotImplemented
        block = vectors[:, None] if vectors.ndim == 1 else vectors
        total = torch.zeros_like(block)
        for weight, part in self.parts(block):
            total.add_(part, alpha=weight)
        return total[:, 0] if vectors.ndim == 1 else total

    def __add__(self, other: "Operator") -> "Operator":
        """The sum of two operators of the same shape; see :class:`SumOperator`."""
        return SumOperator(self, other) if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: float) -> "Operator":
        """A multiple of the operator."""
        return MultipleOperator(self, float(factor)) if _is_number(factor) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> "Operator":
        """−H."""
        return -1.0 * self

    def __sub__(self, other: "Operator") -> "Operator":
        """The difference of two operators of the same shape."""
        return self + -1.0 * other if isinstance(other, Operator) else NotImplemented

    @property
    def T(self) -> Self:
        """The operator, as it is symmetric."""
        return self

    def __repr__(self) -> str:
        """One line: the kind, the shape, dtype and device."""
        return f"{type(self).__name__}({self.shape[0]} × {self.shape[1]}, {_kind(self)})"

    def to_dense(self) -> Tensor:
        """The matrix, shape (P, P), by P products; for small P, as it takes P² entries."""
        return self @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)

    def to_scipy(self) -> LinearOperator:
        """The same map for scipy, on numpy arrays of the same precision.

        Example:
            >>> import torch
            >>> from scipy.sparse.linalg import eigsh
            >>> from ssgd_analysis.curvature import DenseOperator
            >>> H = DenseOperator(torch.diag(torch.arange(5.0)))
            >>> eigsh(H.to_scipy(), k=2, which="LA", return_eigenvectors=False).round(3).tolist()
            [3.0, 4.0]
        """

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


def _kind(of: "Tensor | Operator") -> str:
    """Dtype and device, for people."""
    return f"{str(of.dtype).removeprefix('torch.')} on {of.device}"


def _is_number(factor: object) -> bool:
    """Whether it is a real number, of Python or numpy, or a tensor that holds one."""
    if isinstance(factor, Tensor):
        return factor.ndim == 0 and not factor.is_complex()
    return isinstance(factor, numbers.Real)


class DenseOperator(Operator):
    """A symmetric matrix as an operator, for planted spectra and small references.

    Args:
        matrix: shape (P, P), symmetric.

    Raises:
        InputError: a matrix that is not square.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, eigenpairs
        >>> spectrum = eigenpairs(DenseOperator(torch.diag(torch.arange(6.0))), 2)
        >>> [round(pair.value, 3) for pair in spectrum.largest]
        [5.0, 4.0]
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"the matrix has shape {tuple(matrix.shape)}: it should be square")
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
        InputError: a diagonal of another length.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, ScaledOperator
        >>> scaled = ScaledOperator(DenseOperator(torch.ones(2, 2)), torch.tensor([1.0, 3.0]))
        >>> scaled.to_dense()
        tensor([[1., 3.],
                [3., 9.]])
    """

    def __init__(self, operator: Operator, diagonal: Tensor) -> None:
        if diagonal.shape != operator.shape[:1]:
            shape = tuple(diagonal.shape)
            raise InputError(f"the diagonal's shape {shape} does not fit {operator.shape}")
        self.operator, self.diagonal = operator, diagonal.to(operator.device, operator.dtype)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.basis_bytes = operator.basis_bytes

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        for weight, part in self.operator.parts(self.diagonal[:, None] * block):
            yield weight, self.diagonal[:, None] * part

    def refresh(self) -> None:
        """Refresh the operator."""
        self.operator.refresh()

    @property
    def sample(self) -> Hashable:
        """That of the operator."""
        return self.operator.sample


class MultipleOperator(Operator):
    """c H for a number c; written ``c * H``.

    Args:
        operator: H, shape (P, P).
        factor: c, finite.

    Raises:
        InputError: a factor that is not finite.
    """

    def __init__(self, operator: Operator, factor: float) -> None:
        if not math.isfinite(factor):
            raise InputError(f"the factor {factor} of an operator should be finite")
        self.operator, self.factor = operator, factor
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.basis_bytes = operator.basis_bytes

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        for weight, part in self.operator.parts(block):
            yield weight, self.factor * part

    def refresh(self) -> None:
        """Refresh the operator."""
        self.operator.refresh()

    @property
    def sample(self) -> Hashable:
        """That of the operator."""
        return self.operator.sample


class SumOperator(Operator):
    """A + B; written ``A + B``.

    Where both are means over the same batches with the same weights, so is the sum, and estimates
    have their sampling errors. Otherwise the sum has a single part and estimates have none: their
    ``stderr`` over examples is ``None``, as one batch alone has no spread.

    Args:
        first: A, shape (P, P).
        second: B, of the same shape, dtype and device.

    Raises:
        InputError: operators of another shape, dtype or device.
    """

    def __init__(self, first: Operator, second: Operator) -> None:
        if first.shape != second.shape or _kind(first) != _kind(second):
            raise InputError(
                f"{first} and {second} can't be added: they should have the same shape,"
                " dtype and device"
            )
        self.first, self.second = first, second
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device
        self.basis_bytes = min(first.basis_bytes, second.basis_bytes)
        self._sample = first.sample if first.sample == second.sample else None

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        if self._sample is None:
            yield 1.0, self.first @ block + self.second @ block
            return
        self.refresh()  # first checks move the weights, which would spoil what the other one keeps
        pairs = zip(self.first.parts(block), self.second.parts(block), strict=True)
        for (weight, one), (_, other) in pairs:
            yield weight, one + other

    def refresh(self) -> None:
        """Refresh both."""
        self.first.refresh()
        self.second.refresh()

    @property
    def sample(self) -> Hashable:
        """That of both, where it is the same one."""
        return self._sample
