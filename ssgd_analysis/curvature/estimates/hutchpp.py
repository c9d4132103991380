"""Hutch++: the trace on a sketch of the range, and Hutchinson's estimate of the rest."""

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.estimates.deflation import Deflation
from ssgd_analysis.curvature.estimates.probes import rademacher
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, Scatter, quotients


class HutchPlusPlus:
    """tr H = tr(QᵀHQ) + tr((I − QQᵀ) H (I − QQᵀ)), Q a basis of H S for random S.

    Args:
        operator: shape (P, P).
        deflated: U, whose part is computed and not estimated.
        generator: draws S and the probes.

    Reference:
        Meyer, Musco, Musco and Woodruff, "Hutch++: Optimal stochastic trace estimation",
        SOSA 2021, algorithm 1.
    """

    widening = 1.0

    def __init__(self, operator: Operator, deflated: Deflation, generator: torch.Generator) -> None:
        self.operator, self.deflated, self.generator = operator, deflated, generator
        self.basis = deflated.vectors[:, :0]  # Q, (P, rank)
        self.inside = Quotients(np.ones(1), np.zeros((1, 0)))
        self.outside: list[Quotients] = []
        self.scatter: Scatter | None = None  # of the probes of the rest

    def grow(self, products: int) -> int:
        """The first call sketches; later ones add probes of the rest."""
        spent = 0
        if not self.outside:
            spent = self._sketch(min(products // 3, self.deflated.free // 2))
        count = products - spent
        probes = rademacher(self.operator, count, self.generator)
        images, (own,) = quotients(self.operator, self._rest(probes))
        self.outside.append(own)
        found = Scatter.of(probes, self._rest(images))
        self.scatter = found if self.scatter is None else self.scatter + found
        return products

    def samples(self) -> Quotients:
        """One sample for each probe of the rest, the sketch's trace added."""
        probes = Quotients.joined(self.outside)
        inside = self.inside.values.sum(axis=1, keepdims=True)
        return Quotients(probes.shares, probes.values + inside)

    def _sketch(self, rank: int) -> int:
        block = self.deflated.project(rademacher(self.operator, rank, self.generator))
        image = self.deflated.project(self.operator @ block)
        basis = torch.linalg.qr(image)[0]
        # where the range is smaller than the sketch, QR fills in directions of its own
        self.basis = torch.linalg.qr(self.deflated.project(basis))[0]
        self.inside = quotients(self.operator, self.basis)[1][0]
        return 2 * rank

    def _rest(self, block: Tensor) -> Tensor:
        block = self.deflated.project(block)
        return block - self.basis @ (self.basis.T @ block)
