"""Hutchinson's estimator: the mean of zᵀHz over random signs."""

from collections.abc import Sequence

import torch

from ssgd_analysis.curvature.estimates.deflation import Deflation
from ssgd_analysis.curvature.estimates.probes import rademacher
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, Scatter, quotients


class Hutchinson:
    """zᵀHz with Rademacher z, projected.

    Args:
        operator: shape (P, P).
        deflated: U, whose part is computed and not estimated.
        generator: draws the probes.
        initial: samples that exist already.
        scatter: of the probes of these samples.

    The mean of ``scatter.squares``, ‖(I − UUᵀ) Hz‖² of the probes, estimates the squared Frobenius
    norm of the projected operator at no further product.
    """

    widening = 1.0

    def __init__(
        self,
        operator: Operator,
        deflated: Deflation,
        generator: torch.Generator,
        initial: Sequence[Quotients] = (),
        scatter: Scatter | None = None,
    ) -> None:
        self.operator, self.deflated, self.generator = operator, deflated, generator
        self.parts, self.scatter = list(initial), scatter

    def grow(self, products: int) -> int:
        """Draw so many probes."""
        probes = rademacher(self.operator, products, self.generator)
        images, (own,) = quotients(self.operator, self.deflated.project(probes))
        self.parts.append(own)
        found = Scatter.of(probes, self.deflated.project(images))
        self.scatter = found if self.scatter is None else self.scatter + found
        return products

    def samples(self) -> Quotients:
        """One sample a probe."""
        return Quotients.joined(self.parts)
