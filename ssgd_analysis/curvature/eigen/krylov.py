"""An orthonormal basis that grows by products, with its projected matrix."""

import math

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.products.plan import BASIS_VECTORS
from ssgd_analysis.errors import WorkError

CHUNK = 1 << 20  # columns rotated at once by a restart: no second basis in memory


class KrylovBasis:
    """Orthonormal Q with H Q = Q T + W B: T projected, W pending directions, B their coupling.

    W holds what the images have outside span(Q). Plain Lanczos has one pending vector, coupled
    to the newest one only. Several pending ones (band Lanczos) let the basis start from any
    block, take in random directions at any time and restart from Ritz vectors, always with
    exact residuals ‖B y‖ and one product for each vector.

    Args:
        dimension: P, the length of a vector.
        size: the most vectors to hold.
        dtype: of the vectors; T and B are float64.
        device: of the vectors.

    Reference:
        Ruhe, "Implementation aspects of band Lanczos algorithms", Math. Comp. 33 (1979).
    """

    def __init__(
        self, dimension: int, size: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.dimension, self.size = dimension, min(size, dimension)
        self.vectors = torch.empty(self.size, dimension, dtype=dtype, device=device)
        self.pending = torch.empty(0, dimension, dtype=dtype, device=device)
        self.projected = np.zeros((self.size, self.size))
        self.coupling = np.zeros((0, self.size))
        self.count = 0
        self.scale = 0.0  # the longest image of a unit vector so far: a lower bound of ‖H‖
        self.rounding = 10 * torch.finfo(dtype).eps

    def take(self, vector: Tensor, image: Tensor) -> None:
        """Add a vector whose product is known.

        Args:
            vector: unit, orthogonal to the basis, shape (P,).
            image: H times it, shape (P,).

        Raises:
            WorkError: the image is not finite.
        """
        length = float(image.norm())
        if not math.isfinite(length):
            raise WorkError("the operator's product is not finite at these weights")
        self.scale = max(self.scale, length)
        self._clear(vector)
        newest = self.count
        self.vectors[newest] = vector
        self.count += 1
        basis = self.vectors[: self.count]
        inside, outside = np.zeros(self.count), np.zeros(len(self.pending))
        for _ in range(2):  # twice is enough (Giraud, Langou, Rozložník 2005)
            part, rest = basis @ image, self.pending @ image
            image = image - basis.T @ part - self.pending.T @ rest
            inside += to_numpy(part)
            outside += to_numpy(rest)
        self.projected[: self.count, newest] = inside
        self.projected[newest, : self.count] = inside
        self.coupling[:, newest] = outside
        beta = float(image.norm())
        free = self.dimension - self.count - len(self.pending)
        if free > 0 and beta > self.rounding * self.scale:
            self.pending = torch.cat([self.pending, (image / beta)[None]])
            row = np.zeros((1, self.size))
            row[0, newest] = beta
            self.coupling = np.concatenate([self.coupling, row])

    def _clear(self, vector: Tensor) -> None:
        """Make the pending directions orthogonal to a vector that joins the basis."""
        if not len(self.pending):
            return
        overlap = to_numpy(self.pending @ vector)
        length = float(np.linalg.norm(overlap))
        if length <= self.rounding:
            return
        # a reflection that leaves all but the first pending vector orthogonal to ``vector``
        mirror = overlap / length
        mirror[0] += math.copysign(1.0, mirror[0])
        mirror /= np.linalg.norm(mirror)
        axis = self._tensor(mirror)
        self.pending = self.pending - 2 * torch.outer(axis, axis @ self.pending)
        self.coupling = self.coupling - 2 * np.outer(mirror, mirror @ self.coupling)
        first, others = self.pending[0], self.pending[1:]
        for _ in range(2):  # what is left can be short, and is to be orthogonal all the same
            first = self._cleared(first - vector * (vector @ first) - others.T @ (others @ first))
        left = float(first.norm())
        if left <= 10 * self.rounding:  # ``vector`` was a combination of the pending ones
            self.pending, self.coupling = others, self.coupling[1:]
            return
        self.pending[0] = first / left
        self.coupling[0] *= left

    def residual(self, coordinates: np.ndarray) -> Tensor | None:
        """The unit vector along H q − Q Qᵀ H q, q = Q y; ``None`` where that is rounding.

        Args:
            coordinates: y, shape (count,).
        """
        weights = self.coupling[:, : self.count] @ coordinates
        length = float(np.linalg.norm(weights))
        if length <= self.rounding * self.scale:
            return None
        return self.pending.T @ self._tensor(weights / length)

    def tail(self) -> Tensor | None:
        """The residual of the newest vector: the next one of its Krylov space."""
        newest = np.zeros(self.count)
        newest[-1] = 1
        return self.residual(newest)

    def beta(self) -> float:
        """The length of the newest vector's residual; zero where it is rounding."""
        length = float(np.linalg.norm(self.coupling[:, self.count - 1]))
        return length if length > self.rounding * self.scale else 0.0

    def fresh(self, generator: torch.Generator) -> Tensor:
        """A unit vector, uniform on the sphere of all that is orthogonal to the basis."""
        vector = torch.randn(
            self.dimension,
            generator=generator,
            dtype=self.vectors.dtype,
            device=self.vectors.device,
        )
        vector = self._cleared(self._cleared(vector))
        return vector / vector.norm()

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (ascending), their residual norms, and coordinates in the basis."""
        values, coordinates = np.linalg.eigh(self.projected[: self.count, : self.count])
        residuals = np.linalg.norm(self.coupling[:, : self.count] @ coordinates, axis=0)
        return values, residuals, coordinates

    def combine(self, coordinates: np.ndarray) -> Tensor:
        """The vectors with the given coordinates, shape (P, K)."""
        return self.vectors[: self.count].T @ self._tensor(coordinates)

    def restart(self, keep: np.ndarray) -> None:
        """Shrink the basis to Ritz vectors; the pending directions stay.

        Args:
            keep: orthonormal eigenvectors of the projected matrix, shape (count, kept).
        """
        values = (keep * (self.projected[: self.count, : self.count] @ keep)).sum(axis=0)
        rotation, count = self._tensor(keep.T), keep.shape[1]
        for piece in self.vectors.split(CHUNK, dim=1):
            piece[:count] = rotation @ piece[: self.count]
        coupling = self.coupling[:, : self.count] @ keep
        self.projected[:], self.coupling[:] = 0, 0
        self.coupling[:, :count] = coupling
        self.count = count
        self.projected[range(count), range(count)] = values

    def _cleared(self, vector: Tensor) -> Tensor:
        """The vector without what the basis holds of it."""
        basis = self.vectors[: self.count]
        return vector - basis.T @ (basis @ vector)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=self.vectors.dtype, device=self.vectors.device)


def capacity(operator: Operator) -> int:
    """How many vectors a basis should hold; beyond them Lanczos restarts."""
    itemsize = torch.finfo(operator.dtype).bits // 8
    return min(BASIS_VECTORS, operator.basis_bytes // (operator.shape[0] * itemsize))


def orthonormal(block: Tensor) -> Tensor:
    """An orthonormal basis of a block's columns, in their order; dependent ones are left out.

    Args:
        block: shape (P, K); columns that are zero or not finite are left out too.

    Returns:
        Shape (P, rank).
    """
    basis = torch.empty(len(block), 0, dtype=block.dtype, device=block.device)
    for column in block.T:
        length = float(column.norm())
        if not (0 < length < math.inf) or basis.shape[1] == len(block):
            continue
        column = column / length
        for _ in range(3):  # the third pass is for columns that nearly depend on the others
            column = column - basis @ (basis.T @ column)
        left = float(column.norm())
        if left > 1e-3:
            basis = torch.cat([basis, (column / left)[:, None]], dim=1)
    return basis


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A copy in float64 on the CPU."""
    return tensor.double().cpu().numpy()
