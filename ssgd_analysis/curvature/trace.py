"""The trace of an operator: Hutchinson, Hutch++ and XTrace, with two errors apart."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from ssgd_analysis.curvature.deflation import Deflation, deflation
from ssgd_analysis.curvature.hutchpp import HutchPlusPlus
from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.curvature.probes import BLOCK, rademacher
from ssgd_analysis.curvature.sampling import (
    Quotients,
    quotients,
    squared_norms,
    weighted_stderr,
)
from ssgd_analysis.curvature.xtrace import XTrace
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

LEAST = 16  # products before a tolerance may stop the estimate
LEAST_PROBES = {"hutchinson": 2, "hutch++": 6, "xtrace": 4}  # for an error at all


@dataclass(frozen=True)
class Trace:
    """A trace estimate with its two errors.

    Args:
        value: the estimate.
        stderr: standard error over the random probes.
        probes: products spent on random vectors.
        sampling_stderr: standard error over the examples, from the batches' own estimates with
            the same probes; ``None`` with a single batch.
        method: ``"hutchinson"``, ``"hutch++"`` or ``"xtrace"``.
        products: all products, those that deflation needed among them.
    """

    value: float
    stderr: float
    probes: int
    sampling_stderr: float | None = None
    method: str = "hutchinson"
    products: int = 0


class Estimator(Protocol):
    """Samples of the trace of the projected operator, whose mean estimates it.

    ``widening`` is what their standard error is multiplied by; one for independent samples.
    """

    widening: float

    def grow(self, products: int) -> int:
        """Spend about so many products; returns how many it was."""

    def samples(self) -> Quotients:
        """Each sample, batch by batch."""


class Hutchinson:
    """zᵀHz with Rademacher z, projected.

    Args:
        operator: shape (P, P).
        known: what is deflated.
        generator: draws the probes.
        drawn: samples that are there already.

    ``squares`` holds ‖(I − UUᵀ) Hz‖² of the probes drawn here, whose mean estimates the squared
    Frobenius norm of the projected operator at no further product.
    """

    widening = 1.0

    def __init__(
        self,
        operator: Operator,
        known: Deflation,
        generator: torch.Generator,
        drawn: Sequence[Quotients] = (),
    ) -> None:
        self.operator, self.known, self.generator = operator, known, generator
        self.drawn = list(drawn)
        self.squares: list[np.ndarray] = []

    def grow(self, products: int) -> int:
        """Draw so many probes."""
        block = self.known.project(rademacher(self.operator, products, self.generator))
        images, (own,) = quotients(self.operator, block)
        self.drawn.append(own)
        self.squares.append(squared_norms(self.known.project(images)))
        return products

    def samples(self) -> Quotients:
        """One sample a probe."""
        return Quotients.joined(self.drawn)


def trace(
    operator: Operator,
    *,
    generator: torch.Generator,
    probes: int = 32,
    method: str = "hutchinson",
    deflate: Tensor | None = None,
    known: Quotients | None = None,
    tol: float | None = None,
    max_probes: int = 1024,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Trace:
    """The trace, unbiased by every method, with its standard error.

    - ``"hutchinson"``: tr H = E[zᵀHz] over Rademacher z, variance 2 (‖H‖²_F − Σ H_ii²) a probe:
      exact on a diagonal matrix. Deflated by the top eigenvectors, only the rest's norm counts.
    - ``"hutch++"``: a third of the products sketches the range, a third gives the trace on it,
      a third is Hutchinson's on the rest. Much better where the eigenvalues decay fast; on a
      flat spectrum worse, by up to √3 in standard error, as only a third is left to average.
    - ``"xtrace"``: half sketches, half multiplies the sketch; every test vector serves both
      ways. The best of the three on decaying spectra; worse by up to √2 on flat ones. Its
      samples share their sketch and spread too little (0.7 to 0.9 of the true error on planted
      spectra): its standard error is theirs times √2.

    Deflated Hutchinson is the default: it keeps a flat bulk's error and removes the outliers'.

    Args:
        operator: symmetric, shape (P, P).
        generator: on the operator's device; draws the probes.
        probes: products on random vectors; as many as dimensions make the last two exact.
        method: see above.
        deflate: orthonormal vectors, shape (P, m), whose part is computed and not estimated.
        known: their quotients (``Spectrum.quotients``); else m products find them.
        tol: go on after ``probes`` until stderr ≤ tol·|value|. The standard error is itself an
            estimate: it counts with its 95% upper limit by χ², and at least 16 products are
            made, so that two lucky probes cannot stop it.
        max_probes: budget with ``tol``.
        deadline: of ``time.monotonic()``; no further block is begun that would end after it.
        progress: told of every product.

    Raises:
        InputError: an unknown method, too few probes for an error, or vectors that are not
            orthonormal.

    Reference:
        Hutchinson 1990; Meyer, Musco, Musco and Woodruff, "Hutch++", SOSA 2021; Epperly, Tropp
        and Webber, "XTrace", SIAM J. Matrix Anal. Appl. 45 (2024).
    """
    if method not in LEAST_PROBES:
        raise InputError(f"the trace method {method!r} is none of {', '.join(LEAST_PROBES)}")
    least = LEAST_PROBES[method]
    if probes < least:
        raise InputError(
            f"the trace by {method} needs at least {least} probes for its error, not {probes}"
        )
    if tol is not None and not tol > 0:
        raise InputError(f"the tolerance {tol} should be positive")
    before = operator.products
    rest = deflation(operator, deflate, known)
    progress.start("trace", probes if tol is None else max_probes)
    if method != "hutchinson" and probes >= rest.free:
        return _exact(operator, rest, method, before)
    kinds: dict[str, Callable[[Operator, Deflation, torch.Generator], Estimator]] = {
        "hutchinson": Hutchinson,
        "hutch++": HutchPlusPlus,
        "xtrace": XTrace,
    }
    estimator = kinds[method](operator, rest, generator)
    # how a sketch's budget is divided decides its accuracy, so it is spent at once
    spent = estimator.grow(probes if method != "hutchinson" else min(BLOCK, probes))
    progress.advance(spent)
    spent = grow(
        estimator, spent, probes, tol=tol, most=max_probes, deadline=deadline, progress=progress
    )
    return estimated(
        estimator, rest, probes=spent, method=method, products=operator.products - before
    )


def _exact(operator: Operator, rest: Deflation, method: str, before: int) -> Trace:
    """The trace by a product with each direction of the rest."""
    directions = torch.linalg.qr(rest.vectors, mode="complete")[0][:, rest.vectors.shape[1] :]
    own = quotients(operator, directions)[1][0]
    whole = Quotients(own.shares, own.values.sum(axis=1, keepdims=True))
    found = estimated(
        Hutchinson(operator, rest, torch.Generator(), [whole]),
        rest,
        probes=rest.free,
        method=method,
        products=operator.products - before,
    )
    return dataclasses.replace(found, stderr=0.0)


def grow(
    estimator: Estimator,
    spent: int,
    probes: int,
    *,
    tol: float | None,
    most: int,
    deadline: float | None,
    progress: Progress,
) -> int:
    """Spend products until there are enough of them, by number, tolerance or time.

    Args:
        estimator: has spent some products.
        spent: how many.
        probes: how many are wanted at least.
        tol: relative standard error to go on to, if any.
        most: budget with ``tol``.
        deadline: of ``time.monotonic()``.
        progress: told of every product.

    Returns:
        All products spent.
    """
    began, before = time.monotonic(), spent
    while True:
        left = probes - spent
        if left <= 0:
            if tol is None or spent >= most or _within(estimator, tol, spent):
                return spent
            left = most - spent
        now = time.monotonic()
        each = (now - began) / max(spent - before, 1)
        if deadline is not None and now + each * min(BLOCK, left) > deadline:
            return spent
        more = estimator.grow(min(BLOCK, left))
        if not more:
            return spent
        spent += more
        progress.advance(more)


def _within(estimator: Estimator, tol: float, spent: int) -> bool:
    values = estimator.samples().mean()
    degrees = len(values) - 1
    if spent < LEAST or degrees < 1:
        return False
    stderr = estimator.widening * values.std(ddof=1) / math.sqrt(len(values))
    upper = stderr * math.sqrt(degrees / chi2.ppf(0.05, degrees))
    return bool(upper <= tol * abs(values.mean()))


def estimated(
    estimator: Estimator, rest: Deflation, *, probes: int, method: str, products: int
) -> Trace:
    """The trace from samples of the rest's, and the known part.

    Args:
        estimator: its samples estimate tr((I − UUᵀ) H (I − UUᵀ)).
        rest: U and its quotients.
        probes: products on random vectors.
        method: how the samples were made.
        products: all products spent.
    """
    samples = estimator.samples()
    values = samples.mean()
    count = len(values)
    stderr = math.inf
    if count > 1:
        stderr = estimator.widening * float(values.std(ddof=1)) / math.sqrt(count)
    each = samples.values.mean(axis=1) + rest.quotients.values.sum(axis=1)
    sampling = weighted_stderr(samples.shares, each)
    return Trace(
        value=float(values.mean() + rest.values().sum()),
        stderr=stderr,
        probes=probes,
        sampling_stderr=None if sampling is None else float(sampling),
        method=method,
        products=products,
    )
