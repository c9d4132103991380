"""The diagonal of an operator, by Hutchinson's estimator or by XDiag."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.krylov import to_numpy
from ssgd_analysis.curvature.estimates.probes import BLOCK, rademacher
from ssgd_analysis.curvature.estimates.xtrace import XTrace, left_out
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

METHODS = ("hutchinson", "xdiag")


@dataclass(frozen=True)
class Diagonal:
    """An estimate of all diagonal entries.

    Args:
        values: shape (P,).
        stderr: standard error of each entry over the probes, shape (P,); by XDiag from samples
            that share a sketch and spread too little (0.7 to 1 of the true error on planted
            spectra), so theirs times √2.
        probes: products spent.
        method: ``"hutchinson"`` or ``"xdiag"``.
    """

    values: Tensor
    stderr: Tensor
    probes: int
    method: str


def diagonal(
    operator: Operator,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    probes: int = 32,
    method: str = "hutchinson",
    progress: Progress = SILENT,
) -> Diagonal:
    """The diagonal, unbiased, with the standard error of each entry.

    - ``"hutchinson"``: H_ii = E[z_i (Hz)_i] over Rademacher z, with the variance
      Σ_{j≠i} H_ij² a probe.
    - ``"xdiag"``: the diagonal of QQᵀH from a sketch Q, and Hutchinson's of the rest, each test
      vector serving both ways as in XTrace. Far better where the eigenvalues decay fast; on a
      flat spectrum worse by up to √2 in standard error.

    Args:
        operator: symmetric, shape (P, P).
        seed: of the random vectors, by default 0; it picks the stream ``"diagonal"``.
        generator: instead of a seed, on the operator's device, for callers that share streams.
        probes: products, at least 2 (4 for XDiag).
        method: see above.
        progress: reports every product.

    Raises:
        InputError: an unknown method, too few probes, or both a seed and a generator.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, diagonal
        >>> diagonal(DenseOperator(torch.diag(torch.tensor([2.0, -1.0]))), probes=4).values
        tensor([ 2., -1.])

    Reference:
        Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", Appl. Numer.
        Math. 57 (2007); Epperly, Tropp and Webber 2024 (see :mod:`..xtrace`), section 2.4.
    """
    generator = seeds.given_generator(generator, seed, "diagonal", device=operator.device)
    if method not in METHODS:
        raise InputError(f"the diagonal method {method!r} should be one of {', '.join(METHODS)}")
    least = 2 if method == "hutchinson" else 4
    if probes < least:
        raise InputError(f"{method} needs at least {least} probes for its error, not {probes}")
    progress.start("diagonal", probes)
    if method == "xdiag":
        return _xdiag(operator, generator, probes, progress)
    moments = Moments(operator)
    for first in range(0, probes, BLOCK):
        block = rademacher(operator, min(BLOCK, probes - first), generator)
        for column in (block * (operator @ block)).T:
            moments.add(column)
        progress.advance(block.shape[1])
    return Diagonal(moments.mean, moments.stderr(), probes, method)


class Moments:
    """Mean and variance of vectors that come one by one (Welford), in two vectors of memory.

    Args:
        operator: says how long, of which type and where the vectors are.
    """

    def __init__(self, operator: Operator) -> None:
        n = operator.shape[0]
        self.count = 0
        self.mean = torch.zeros(n, dtype=operator.dtype, device=operator.device)
        self.squares = torch.zeros_like(self.mean)

    def add(self, vector: Tensor) -> None:
        """Take in one more."""
        self.count += 1
        away = vector - self.mean
        self.mean += away / self.count
        self.squares += away * (vector - self.mean)

    def stderr(self) -> Tensor:
        """Standard error of the mean."""
        return (self.squares / (self.count * (self.count - 1))).sqrt()


def _xdiag(
    operator: Operator, generator: torch.Generator, probes: int, progress: Progress
) -> Diagonal:
    """Sample i: diag of Q_i Q_iᵀ H plus ω_i ∘ (I − Q_i Q_iᵀ) H ω_i, Q_i the sketch without ω_i."""
    n, count = operator.shape[0], probes // 2
    if probes >= n:  # as many products as entries: exact
        entries = (operator @ torch.eye(n, dtype=operator.dtype, device=operator.device)).diagonal()
        return Diagonal(entries, torch.zeros_like(entries), n, "xdiag")
    tests = rademacher(operator, count, generator)
    image = operator @ tests
    basis = torch.linalg.qr(image)[0]  # (P, k)
    progress.advance(count)
    product = operator @ basis
    progress.advance(count)
    mixed = product.T @ tests  # QᵀHΩ, (k, k)
    directions = left_out(to_numpy(mixed))
    lost = torch.as_tensor(directions, dtype=basis.dtype, device=basis.device)  # s_i as columns
    whole = (basis * product).sum(dim=1)
    moments = Moments(operator)
    for index in range(count):
        s = lost[:, index]
        gone = basis @ s
        inside = mixed[:, index] - s * (s @ mixed[:, index])
        rest = image[:, index] - basis @ inside
        moments.add(whole - gone * (product @ s) + tests[:, index] * rest)
    return Diagonal(moments.mean, XTrace.widening * moments.stderr(), 2 * count, "xdiag")
