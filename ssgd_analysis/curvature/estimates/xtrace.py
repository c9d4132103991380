"""XTrace: each test vector probes what the sketch by all the others has left."""

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.eigen.krylov import to_numpy
from ssgd_analysis.curvature.estimates.deflation import Deflation
from ssgd_analysis.curvature.estimates.probes import gaussian
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, Scatter


class XTrace:
    """The exchangeable trace estimate, and each test vector's own as a sample.

    With Q a basis of H Ω, leaving ω_i out takes one direction Q s_i away, s_i orthogonal to all
    other columns of QᵀHΩ. With c_i = (I − s_i s_iᵀ) Qᵀω_i and μ_i = ω_i − Q c_i, sample i is

        tr(QᵀHQ) − s_iᵀ QᵀHQ s_i + (n − k + 1) μ_iᵀHμ_i / ‖μ_i‖²,

    unbiased as the direction of μ_i is uniform on what is left. For given Ω, Q and s it is
    linear in H, so that each batch has its own.

    Args:
        operator: shape (P, P).
        deflated: U, whose part is computed and not estimated.
        generator: draws Ω.

    Reference:
        Epperly, Tropp and Webber, "XTrace: Making the most of every sample in stochastic trace
        estimation", SIAM J. Matrix Anal. Appl. 45 (2024), sections 2.1 and 2.3.
    """

    widening = 2**0.5  # the samples share their sketch, so they spread less than they err
    scatter: Scatter | None = None  # its test vectors are Gaussian

    def __init__(self, operator: Operator, deflated: Deflation, generator: torch.Generator) -> None:
        self.operator, self.deflated, self.generator = operator, deflated, generator
        self.tests = deflated.vectors[:, :0]  # Ω, (P, k)
        self.basis = deflated.vectors[:, :0]  # Q, (P, k)
        self.shares: list[float] = []
        self.inner: list[np.ndarray] = []  # QᵀH_bQ of each batch, (k, k)
        self.mixed: list[np.ndarray] = []  # QᵀH_bΩ, (k, k)
        self.plain: list[np.ndarray] = []  # ω_iᵀH_bω_i, (k,)

    def grow(self, products: int) -> int:
        """Add products // 2 test vectors, as far as the dimension allows."""
        old = self.tests.shape[1]
        count = min(products // 2, self.deflated.free - 1 - old)
        if count < 1:
            return 0
        fresh = self.deflated.project(gaussian(self.operator, count, self.generator))
        image = torch.zeros_like(fresh)
        rows = []
        for share, part in self.operator.parts(fresh):
            image.add_(part, alpha=share)
            rows.append((share, to_numpy(self.basis.T @ part), to_numpy((fresh * part).sum(dim=0))))
        self.tests = torch.cat([self.tests, fresh], dim=1)
        added = self._orthonormal(self.deflated.project(image))
        self.basis = torch.cat([self.basis, added], dim=1)
        if not self.shares:
            self.shares = [share for share, _, _ in rows]
            self.inner = [np.zeros((0, 0)) for _ in rows]
            self.mixed = [np.zeros((0, 0)) for _ in rows]
            self.plain = [np.zeros(0) for _ in rows]
        for index, (_, part) in enumerate(self.operator.parts(added)):
            _, old_fresh, plain = rows[index]
            column = to_numpy(self.basis.T @ part)  # (k, count)
            inner = np.zeros((old + count, old + count))
            inner[:old, :old] = self.inner[index]
            inner[:, old:], inner[old:, :] = column, column.T
            mixed = np.zeros_like(inner)
            mixed[:old, :old], mixed[:old, old:] = self.mixed[index], old_fresh
            mixed[old:, :] = to_numpy(part.T @ self.tests)
            self.inner[index], self.mixed[index] = inner, mixed
            self.plain[index] = np.concatenate([self.plain[index], plain])
        return 2 * count

    def samples(self) -> Quotients:
        """One sample for each test vector."""
        k = self.tests.shape[1]
        shares = np.array(self.shares)
        mixed = np.einsum("b,bij->ij", shares, np.array(self.mixed))
        lost = left_out(mixed)
        inside = to_numpy(self.basis.T @ self.tests)
        inside = inside - lost * (lost * inside).sum(axis=0)  # c_i as columns
        lengths = to_numpy((self.tests**2).sum(dim=0)) - (inside**2).sum(axis=0)
        scale = (self.deflated.free - k + 1) / lengths
        rows = []
        for inner, own, plain in zip(self.inner, self.mixed, self.plain, strict=True):
            removed = (lost * (inner @ lost)).sum(axis=0)
            rest = plain - 2 * (inside * own).sum(axis=0) + (inside * (inner @ inside)).sum(axis=0)
            rows.append(np.trace(inner) - removed + scale * rest)
        return Quotients(shares, np.array(rows))

    def _orthonormal(self, block: Tensor) -> Tensor:
        for _ in range(2):
            block = self.deflated.project(block - self.basis @ (self.basis.T @ block))
            block = torch.linalg.qr(block)[0]
        return block


def left_out(mixed: np.ndarray) -> np.ndarray:
    """For each column, as a column, the unit vector orthogonal to all other ones.

    Where the columns are dependent (an operator of low rank) nothing is lost by leaving one out;
    a tiny multiple of the identity then picks a direction that hardly matters.
    """
    scale = np.abs(mixed).max() or 1.0
    safe = mixed + 1e-14 * scale * np.eye(len(mixed))
    dual = np.linalg.inv(safe).T
    return dual / np.linalg.norm(dual, axis=0)
