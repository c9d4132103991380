"""Eigenpairs by thick-restart Lanczos with full re-orthogonalisation, stopped by residuals."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.curvature.sampling import weighted_stderr
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.progress import SILENT, Progress

BASIS_BYTES = 2e9  # memory for the basis; beyond it Lanczos restarts
BASIS_VECTORS = 600  # beyond it the projected problem costs more than it saves


@dataclass(frozen=True)
class Eigenpair:
    """An eigenvalue with its doubt.

    Args:
        value: Rayleigh quotient of the unit vector found.
        residual: ‖Hv − λv‖₂ / |λ|, by a product of its own; infinite for λ = 0 unless exact.
        residual_norm: ‖Hv − λv‖₂: some true eigenvalue lies within it of ``value``.
        stderr: sampling error over examples, from the batches' quotients of the same vector;
            ``None`` with a single batch. Of a top eigenvalue it does not hold the upward
            selection bias of a small sample.
    """

    value: float
    residual: float
    residual_norm: float
    stderr: float | None


@dataclass(frozen=True)
class Spectrum:
    """Both ends of a spectrum.

    Args:
        largest: the K largest eigenvalues, algebraic, descending.
        smallest: the smallest one.
        vectors: unit vectors of ``largest``, shape (P, K).
        products: operator products spent.
        stop: ``"residual"``: every wanted pair met the tolerance; ``"exact"``: the basis
            spans the whole space; ``"products"``: the budget ran out first, see the residuals.
    """

    largest: list[Eigenpair]
    smallest: Eigenpair
    vectors: Tensor
    products: int
    stop: str


class KrylovBasis:
    """An orthonormal basis that grows by the operator's image of its newest vector.

    The projected matrix QᵀHQ is kept whole, not tridiagonal, so that restarts with Ritz
    vectors and fresh random directions need no case of their own.

    Args:
        operator: the map.
        size: the most vectors to hold.
        start: the first vector, any length, not zero.
        generator: for fresh directions after an invariant subspace was found.
    """

    def __init__(
        self, operator: Operator, size: int, start: Tensor, generator: torch.Generator
    ) -> None:
        self.operator, self.generator = operator, generator
        self.vectors = torch.empty(size + 1, len(start), dtype=start.dtype, device=start.device)
        self.vectors[0] = start / start.norm()
        self.projected = np.zeros((size, size))
        self.count = 0  # vectors whose image is known; one more is pending
        self.beta = 0.0  # coupling of the newest of them to the pending one

    def expand(self) -> None:
        """Multiply the pending vector and take it in; orthonormalise the next one."""
        known = self.vectors[: self.count + 1]
        image = self.operator @ known[-1]
        size = float(image.norm())
        if not math.isfinite(size):
            raise WorkError("the operator's product is not finite at these weights")
        overlap = torch.zeros(len(known), dtype=image.dtype, device=image.device)
        for _ in range(2):  # twice is enough (Giraud, Langou, Rozložník 2005)
            part = known @ image
            image = image - known.T @ part
            overlap += part
        column = overlap.double().cpu().numpy()
        self.projected[: len(known), self.count] = column
        self.projected[self.count, : len(known)] = column
        self.count += 1
        self.beta = float(image.norm())
        scale = max(size, float(np.abs(self.projected[: self.count, : self.count]).max()))
        if self.count == len(image):
            self.beta = 0.0
        elif self.beta <= 10 * torch.finfo(image.dtype).eps * scale:
            self.beta = 0.0  # an invariant subspace: go on in a fresh direction
            self.vectors[self.count] = self._fresh(known)
        else:
            self.vectors[self.count] = image / self.beta

    def restart(self, keep: np.ndarray) -> None:
        """Shrink the basis to the Ritz vectors with the given coordinates, plus the pending one.

        Args:
            keep: orthonormal eigenvectors of the projected matrix, shape (count, kept).
        """
        values = (keep * (self.projected[: self.count, : self.count] @ keep)).sum(axis=0)
        rotation = torch.as_tensor(keep.T, dtype=self.vectors.dtype, device=self.vectors.device)
        pending = self.vectors[self.count].clone()
        self.vectors[: len(rotation)] = rotation @ self.vectors[: self.count]
        self.count = len(rotation)
        self.vectors[self.count] = pending
        self.projected[:] = 0
        self.projected[range(self.count), range(self.count)] = values

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (ascending), their residual norms, and coordinates in the basis."""
        values, coordinates = np.linalg.eigh(self.projected[: self.count, : self.count])
        return values, self.beta * np.abs(coordinates[-1]), coordinates

    def _fresh(self, known: Tensor) -> Tensor:
        vector = torch.randn(
            known.shape[1], generator=self.generator, dtype=known.dtype, device=known.device
        )
        for _ in range(2):
            vector -= known.T @ (known @ vector)
        return vector / vector.norm()


def eigenpairs(
    operator: Operator,
    k: int,
    *,
    generator: torch.Generator,
    tol: float = 1e-4,
    max_products: int = 1000,
    smallest: bool = True,
    progress: Progress = SILENT,
) -> Spectrum:
    """The k largest eigenvalues (algebraic) and the smallest one, with residuals.

    Stops when every wanted pair has ‖Hv − λv‖ ≤ tol·|λ|, or ≤ 10 machine epsilons of the
    largest |λ|, below which the operator's own rounding speaks. Eigenvalues that are equal, or
    closer than about 2·tol·|λ|, can be found fewer times than they stand in the spectrum; and
    with a budget below k products fewer than k pairs come back.

    Args:
        operator: symmetric, shape (P, P).
        k: how many of the largest; at most P are returned.
        generator: on the operator's device; picks the starting vector.
        tol: relative residual to reach.
        max_products: budget of operator products for the search; k + 1 more certify.
        smallest: wait for the smallest one too; else it is as good as it happens to be.
        progress: told of every product.

    Raises:
        InputError: a k below 1, or a tolerance that is not positive.
        WorkError: a product is not finite.

    Reference:
        Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems",
        SIAM J. Matrix Anal. Appl. 22 (2000).
    """
    if k < 1:
        raise InputError(f"the number of eigenvalues {k} should be at least 1")
    if not tol > 0 or not math.isfinite(tol):
        raise InputError(f"the tolerance {tol} should be positive")
    n, before = operator.shape[0], operator.products
    k = min(k, n)
    itemsize = torch.finfo(operator.dtype).bits // 8
    size = min(n, max(2 * k + 20, min(BASIS_VECTORS, int(BASIS_BYTES / (n * itemsize)))))
    start = torch.randn(n, generator=generator, dtype=operator.dtype, device=operator.device)
    basis = KrylovBasis(operator, size, start, generator)
    progress.start("eigenvalues", max_products)
    next_check = k + 1
    while True:
        basis.expand()
        spent = operator.products - before
        if spent < min(next_check, max_products) and basis.count < size:
            progress.advance(1)
            continue
        next_check = spent + 3 + spent // 20  # the dense problem is solved now and then only
        values, residuals, coordinates = basis.ritz()
        wanted = [*range(len(values) - 1, max(len(values) - 1 - k, -1), -1), 0]
        allowed = np.maximum(
            tol * np.abs(values), 10 * torch.finfo(operator.dtype).eps * np.abs(values).max()
        )
        awaited = wanted if smallest else wanted[:-1]
        worst = float((residuals / np.maximum(allowed, 1e-300))[awaited].max())
        progress.advance(1, f"residual {worst * tol:.1e} of {tol:.0e}")
        if basis.count == n:
            stop = "exact"
        elif worst <= 1 and len(values) > k:
            stop = "residual"
        elif spent >= max_products:
            stop = "products"
        else:
            if basis.count == size:  # keep the upper end and a little of the lower one
                upper, lower = min(k + size // 4, size - 10), 1 + size // 10
                keep = np.r_[0:lower, size - upper : size]
                basis.restart(coordinates[:, np.unique(keep)])
            continue
        break
    rotation = torch.as_tensor(coordinates[:, wanted], dtype=operator.dtype, device=operator.device)
    vectors = basis.vectors[: basis.count].T @ rotation
    del basis
    pairs, vectors = certify(operator, vectors)
    found = sorted(range(len(pairs) - 1), key=lambda i: -pairs[i].value)
    return Spectrum(
        largest=[pairs[i] for i in found],
        smallest=pairs[-1],
        vectors=vectors[:, found],
        products=operator.products - before,
        stop=stop,
    )


def certify(operator: Operator, vectors: Tensor) -> tuple[list[Eigenpair], Tensor]:
    """Rayleigh quotient, true residual and sampling error of given vectors, one product each.

    Args:
        operator: shape (P, P).
        vectors: shape (P, K), not zero.

    Returns:
        One pair for each vector, and the vectors scaled to length one.
    """
    vectors = vectors / vectors.norm(dim=0)
    total = torch.zeros_like(vectors)
    weights, quotients = [], []
    for weight, part in operator.parts(vectors):
        total.add_(part, alpha=weight)
        weights.append(weight)
        quotients.append((vectors * part).sum(dim=0).double().cpu().numpy())
    values = (vectors * total).sum(dim=0)
    norms = (total - vectors * values).norm(dim=0).tolist()
    errors = weighted_stderr(np.array(weights), np.array(quotients))
    pairs = []
    for index, (value, norm) in enumerate(zip(values.tolist(), norms, strict=True)):
        relative = norm / abs(value) if value else (math.inf if norm else 0.0)
        error = None if errors is None else float(errors[index])
        pairs.append(Eigenpair(value, relative, norm, error))
    return pairs, vectors
