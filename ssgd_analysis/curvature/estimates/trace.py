"""The trace of an operator: Hutchinson, Hutch++ and XTrace, with two errors apart."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.special import gammaincinv, stdtrit
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.eigenpairs import Spectrum
from ssgd_analysis.curvature.estimates.deflation import Deflation, deflation
from ssgd_analysis.curvature.estimates.hutchinson import Hutchinson
from ssgd_analysis.curvature.estimates.hutchpp import HutchPlusPlus
from ssgd_analysis.curvature.estimates.probes import BLOCK
from ssgd_analysis.curvature.estimates.xtrace import XTrace
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import (
    Quotients,
    Scatter,
    quotients,
    weighted_stderr,
)
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

LEAST = 16  # products before a tolerance may stop the estimate
LEAST_PROBES = {"hutchinson": 2, "hutch++": 6, "xtrace": 4}  # for an error at all


@dataclass(frozen=True)
class Trace:
    """A trace estimate with its two errors.

    Args:
        value: the estimate.
        stderr: standard error over the random probes, from the spread of their estimates: of few
            probes itself uncertain, and small where the value is small, so that errors of 3.5 of
            them are not rare (1% for 32 probes of an LSTM's Hessian).
        probes: products spent on random vectors.
        sampling_stderr: standard error over the examples, from the batches' own estimates with
            the same probes; ``None`` with a single batch.
        method: ``"hutchinson"``, ``"hutch++"`` or ``"xtrace"``.
        products: all products, those that deflation needed among them.
        low: 95% interval over the probes, lower end: Student's t, with the larger of the variance
            of the estimates and the one that their products tell (see ``Scatter``).
        high: the same, upper end.
        stop: ``"probes"``: as many as were asked for; ``"tolerance"``: it was met;
            ``"max_probes"``: it was not met within them; ``"time"``: the time ran out first.
    """

    value: float
    stderr: float
    probes: int
    sampling_stderr: float | None = None
    method: str = "hutchinson"
    products: int = 0
    low: float = -math.inf
    high: float = math.inf
    stop: str = "probes"


class Estimator(Protocol):
    """Samples of the trace of the projected operator, whose mean estimates it.

    ``widening`` is what their standard error is multiplied by; one for independent samples.
    ``scatter`` is of the probes where they are Rademacher's, else ``None``.
    """

    widening: float
    scatter: Scatter | None

    def grow(self, products: int) -> int:
        """Spend about so many products; returns how many it was."""

    def samples(self) -> Quotients:
        """Each sample, batch by batch."""


def trace(
    operator: Operator,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    probes: int = 32,
    method: str = "hutchinson",
    deflate: Tensor | Spectrum | Deflation | None = None,
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
        seed: of the random vectors, by default 0; it picks the stream ``"trace"``.
        generator: instead of a seed, on the operator's device, for callers that share streams.
        probes: products on random vectors; as many as dimensions make the last two exact.
        method: see above.
        deflate: directions whose part is computed and not estimated: those of a spectrum of this
            operator, at no product, or orthonormal vectors, shape (P, m), at m products.
        tol: go on after ``probes`` until stderr ≤ tol·|value|, the trace's and not that of the
            part which is estimated. The standard error is itself an estimate: it counts with its
            95% upper limit by χ², and at least 16 products are made, so that two lucky probes
            cannot stop it. A trace that nearly cancels may never meet it: see ``stop``.
        max_probes: budget with ``tol``.
        deadline: of ``time.monotonic()``; no further block is begun that would end after it.
        progress: reports every product.

    Raises:
        InputError: an unknown method, too few probes for an error, vectors that are not
            orthonormal, or both a seed and a generator.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, trace
        >>> factor = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
        >>> found = trace(DenseOperator(factor @ factor.T), probes=64, seed=0)
        >>> found.low < float((factor @ factor.T).trace()) < found.high, found.sampling_stderr
        (True, None)

    Reference:
        Hutchinson 1990; Meyer, Musco, Musco and Woodruff, "Hutch++", SOSA 2021; Epperly, Tropp
        and Webber, "XTrace", SIAM J. Matrix Anal. Appl. 45 (2024).
    """
    generator = seeds.given_generator(generator, seed, "trace", device=operator.device)
    if method not in LEAST_PROBES:
        raise InputError(f"the trace method {method!r} should be one of {', '.join(LEAST_PROBES)}")
    least = LEAST_PROBES[method]
    if probes < least:
        raise InputError(
            f"the trace by {method} needs at least {least} probes for its error, not {probes}"
        )
    if tol is not None and not tol > 0:
        raise InputError(f"the tolerance {tol} should be positive")
    before = operator.products
    rest = deflation(operator, deflate)
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
    spent, stop = grow(
        estimator,
        spent,
        probes,
        tol=tol,
        offset=float(rest.values().sum()),
        most=max_probes,
        deadline=deadline,
        progress=progress,
    )
    return estimated(
        estimator,
        rest,
        probes=spent,
        method=method,
        products=operator.products - before,
        stop=stop,
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
    return dataclasses.replace(found, stderr=0.0, low=found.value, high=found.value)


def grow(
    estimator: Estimator,
    spent: int,
    probes: int,
    *,
    tol: float | None = None,
    offset: float = 0.0,
    most: int = 0,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> tuple[int, str]:
    """Spend products until there are enough of them, by number, tolerance or time.

    Args:
        estimator: has spent some products.
        spent: how many.
        probes: how many are wanted at least.
        tol: standard error to go on to, if any, relative to the trace.
        offset: the known part of the trace, which the samples do not hold.
        most: budget with ``tol``.
        deadline: of ``time.monotonic()``.
        progress: reports every product.

    Returns:
        All products spent, and what ended it: ``stop`` of a :class:`Trace`.
    """
    began, before = time.monotonic(), spent
    while True:
        left = probes - spent
        if left <= 0:
            if tol is None:
                return spent, "probes"
            if _within(estimator, tol, offset, spent):
                return spent, "tolerance"
            if spent >= most:
                return spent, "max_probes"
            left = most - spent
        now = time.monotonic()
        each = (now - began) / max(spent - before, 1)
        if deadline is not None and now + each * min(BLOCK, left) > deadline:
            return spent, "time"
        more = estimator.grow(min(BLOCK, left))
        if not more:  # no dimension is left to probe
            return spent, "probes" if tol is None else "max_probes"
        spent += more
        progress.advance(more)


def _within(estimator: Estimator, tol: float, offset: float, spent: int) -> bool:
    values = estimator.samples().mean()
    degrees = len(values) - 1
    if spent < LEAST or degrees < 1:
        return False
    low = 2 * float(gammaincinv(degrees / 2, 0.05))  # of χ² with so many degrees of freedom
    upper = _safe_stderr(estimator, values) * math.sqrt(degrees / low)
    return bool(upper <= tol * abs(values.mean() + offset))


def _safe_stderr(estimator: Estimator, values: np.ndarray) -> float:
    """The larger of what the samples and what their products say of the standard error."""
    variance = values.var(ddof=1)
    if estimator.scatter is not None:
        variance = max(variance, estimator.scatter.variance())
    return estimator.widening * math.sqrt(variance / len(values))


def estimated(
    estimator: Estimator,
    rest: Deflation,
    *,
    probes: int,
    method: str,
    products: int,
    stop: str = "probes",
) -> Trace:
    """The trace from samples of the rest's, and the known part.

    Args:
        estimator: its samples estimate tr((I − UUᵀ) H (I − UUᵀ)).
        rest: U and its quotients.
        probes: products on random vectors.
        method: how the samples were made.
        products: all products spent.
        stop: what ended it.
    """
    samples = estimator.samples()
    values = samples.mean()
    count = len(values)
    value = float(values.mean() + rest.values().sum())
    stderr = wide = math.inf
    if count > 1:
        stderr = estimator.widening * float(values.std(ddof=1)) / math.sqrt(count)
        wide = float(stdtrit(count - 1, 0.975)) * _safe_stderr(estimator, values)
    each = samples.values.mean(axis=1) + rest.quotients.values.sum(axis=1)
    sampling = weighted_stderr(samples.shares, each)
    return Trace(
        value=value,
        stderr=stderr,
        probes=probes,
        sampling_stderr=None if sampling is None else float(sampling),
        method=method,
        products=products,
        low=value - wide,
        high=value + wide,
        stop=stop,
    )
