"""Eigenvalues without the upward selection bias of a small sample, by cross-fitting."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.eigenpairs import eigenpairs
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import quotients
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress


@dataclass(frozen=True)
class CrossFit:
    """Quotients on one half of the examples of vectors found on the other, and vice versa.

    Args:
        values: the mean of both directions, by rank, shape (K,).
        stderr: sampling error over the batches of both halves, shape (K,); ``None`` where a
            half has a single batch.
        products: operator columns spent on both halves.
    """

    values: list[float]
    stderr: list[float] | None
    products: int


def cross_fit(
    half_a: Operator,
    half_b: Operator,
    vectors: Tensor | None,
    k: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    tol: float = 1e-2,
    share_a: float = 0.5,
    max_products: int = 200,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> CrossFit:
    """The downward-biased partner of the k largest eigenvalues.

    The largest eigenvalue of a sample's Hessian is above the population's on average: its
    vector was chosen to maximise the same sample's quotient. A vector that was found on other
    examples has no such advantage, so its mean quotient is the population's at that vector: at
    most λ_1, and for the first k together at most λ_1 + … + λ_k. The truth lies between both.

    Args:
        half_a: mean Hessian of one half of the examples, shape (P, P).
        half_b: of the other half.
        vectors: to start from, those of all examples, shape (P, m), or ``None``.
        k: how many eigenvalues.
        seed: of the random vectors, by default 0; it picks the stream ``"cross_fit"``.
        generator: instead of a seed, on the operator's device, for callers that share streams.
        tol: relative residual of the halves' vectors; the sampling error is far larger.
        share_a: examples of the first half over all.
        max_products: budget of the search on each half.
        deadline: of ``time.monotonic()``.
        progress: reports every product.

    Raises:
        InputError: halves of different shape, a share outside (0, 1), or both a seed and a
            generator.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, cross_fit
        >>> one = DenseOperator(torch.diag(torch.tensor([5.0, 2.0, 1.0])))
        >>> other = DenseOperator(torch.diag(torch.tensor([4.0, 2.0, 1.0])))
        >>> [round(value, 3) for value in cross_fit(one, other, None, 1).values]
        [4.5]
    """
    generator = seeds.given_generator(generator, seed, "cross_fit", device=half_a.device)
    if half_a.shape != half_b.shape:
        raise InputError(f"the halves have different shapes {half_a.shape} and {half_b.shape}")
    if not 0 < share_a < 1:
        raise InputError(f"the share {share_a} of the first half should be between 0 and 1")
    before = half_a.products + half_b.products
    totals, variances = np.zeros(min(k, half_a.shape[0])), np.zeros(min(k, half_a.shape[0]))
    for finder, other, share in ((half_a, half_b, 1 - share_a), (half_b, half_a, share_a)):
        found = eigenpairs(
            finder,
            k,
            generator=generator,
            tol=tol,
            max_products=max_products,
            smallest=False,
            start=vectors,
            deadline=deadline,
            progress=progress,
        )
        measured = quotients(other, found.vectors)[1][0]
        error = measured.stderr()
        totals += share * measured.mean()
        variances += math.nan if error is None else (share * error) ** 2
    unknown = bool(np.isnan(variances).any())
    return CrossFit(
        values=[float(value) for value in totals],
        stderr=None if unknown else [float(error) for error in np.sqrt(variances)],
        products=half_a.products + half_b.products - before,
    )
