"""Spectrum, trace and density of one operator, no product made twice."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.eigenpairs import Spectrum, eigenpairs
from ssgd_analysis.curvature.estimates.deflation import Deflation, deflation
from ssgd_analysis.curvature.estimates.density import Density, smoothed
from ssgd_analysis.curvature.estimates.hutchinson import Hutchinson
from ssgd_analysis.curvature.estimates.quadrature import Quadrature, quadrature
from ssgd_analysis.curvature.estimates.trace import Trace, estimated, grow
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

SEARCH_TIME = 0.6  # share of the time that the eigenpairs may take
DENSITY_TIME = 0.8  # of what is then left


@dataclass(frozen=True)
class Survey:
    """What one call finds.

    Args:
        spectrum: the largest eigenpairs and the smallest.
        trace: by Hutchinson, deflated by them.
        density: deflated by them.
        products: operator columns spent on all of it.
        runs: the density's Lanczos runs, on what the eigenvectors leave.
        traces: each probe's estimate of the trace, shape (probes,).
        squares: each probe's estimate of ‖H‖²_F, shape (probes,).
    """

    spectrum: Spectrum
    trace: Trace
    density: Density
    products: int
    runs: Quadrature
    traces: np.ndarray
    squares: np.ndarray


def survey(
    operator: Operator,
    k: int,
    *,
    seed: int = 0,
    tol: float = 1e-4,
    max_products: int = 1000,
    probes: int = 32,
    density_probes: int = 4,
    density_steps: int = 40,
    start: Tensor | None = None,
    check: bool = True,
    trace_tol: float | None = None,
    max_probes: int = 1024,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Survey:
    """Eigenpairs first; then trace and density of what they leave.

    The eigenvectors' certificates give their part of the trace and the density's spikes. Each
    Lanczos run of the density begins with the product of a projected Rademacher probe, which
    is one of the trace's probes: it costs ``probes - density_probes`` products more.

    Args:
        operator: symmetric, shape (P, P).
        k: how many of the largest eigenvalues.
        seed: of the streams ``"lambda_max"``, ``"density"`` and ``"trace"``.
        tol: relative residual of the eigenpairs.
        max_products: budget of the search for eigenpairs.
        probes: of the trace, at least ``density_probes``.
        density_probes: Lanczos runs of the density, at least 2.
        density_steps: products of each, at least 2.
        start: see :func:`ssgd_analysis.curvature.eigen.eigenpairs`.
        check: see :func:`ssgd_analysis.curvature.eigen.eigenpairs`.
        trace_tol: see ``tol`` of :func:`ssgd_analysis.curvature.estimates.trace`.
        max_probes: of the trace, with ``trace_tol``.
        deadline: of ``time.monotonic()``; eigenpairs get 60% of the time, the density 80% of
            the rest; each says how far it came.
        progress: reports every product.

    Raises:
        InputError: see the functions named.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, survey
        >>> found = survey(DenseOperator(torch.diag(torch.arange(1.0, 9.0))), 2, probes=8)
        >>> round(found.spectrum.largest[0].value, 3), round(found.trace.value, 3)
        (8.0, 36.0)
    """
    if density_probes < 2 or density_steps < 2:
        raise InputError(
            "the density needs at least 2 probes and 2 steps, "
            f"not {density_probes} probes and {density_steps} steps"
        )
    if probes < density_probes:
        raise InputError(
            f"the trace shares the density's {density_probes} probes: probes {probes} should be at"
            " least as many"
        )
    before = operator.products

    def stream(name: str) -> torch.Generator:
        return seeds.generator(seed, name, device=operator.device)

    def share(part: float) -> float | None:
        now = time.monotonic()
        return None if deadline is None else now + part * (deadline - now)

    spectrum = eigenpairs(
        operator,
        k,
        tol=tol,
        max_products=max_products,
        start=start,
        check=check,
        generator=stream("lambda_max"),
        deadline=share(SEARCH_TIME),
        progress=progress,
    )
    rest = deflation(operator, spectrum)
    found = operator.products
    runs = quadrature(
        operator,
        rest,
        generator=stream("density"),
        probes=density_probes,
        steps=density_steps,
        deadline=share(DENSITY_TIME),
        progress=progress,
    )
    extra = Hutchinson(operator, rest, stream("trace"), [runs.samples], runs.scatter)
    spent, stop = grow(
        extra,
        density_probes,
        probes,
        tol=trace_tol,
        offset=float(rest.values().sum()),
        most=max_probes,
        deadline=deadline,
        progress=progress,
    )
    return Survey(
        spectrum=spectrum,
        trace=estimated(
            extra,
            rest,
            probes=spent,
            method="hutchinson",
            products=operator.products - found,
            stop=stop,
        ),
        density=smoothed(runs, rest),
        products=operator.products - before,
        runs=runs,
        traces=extra.samples().mean() + rest.values().sum(),
        squares=_squares(extra) + _deflated_square(spectrum, rest),
    )


def _squares(estimator: Hutchinson) -> np.ndarray:
    scatter = estimator.scatter
    return np.zeros(0) if scatter is None else scatter.squares


def _deflated_square(spectrum: Spectrum, rest: Deflation) -> float:
    """‖H‖²_F less that of (I − UUᵀ) H (I − UUᵀ).

    With θ the Ritz values and R = HU − Uθ the residuals it is Σ θ² + 2‖R‖²: H has R twice, to the
    right of UᵀHU and below.
    """
    pairs = [*spectrum.largest, spectrum.smallest][: rest.vectors.shape[1]]
    return sum(pair.value**2 + 2 * pair.residual_norm**2 for pair in pairs)


def more_squares(
    operator: Operator,
    found: Survey,
    count: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """The survey's estimates of ‖H‖²_F and ``count`` more, a product each.

    Args:
        operator: the one surveyed.
        found: the survey.
        count: how many more.
        seed: of the probes, by default 0; it picks the stream ``"squares"``.
        generator: instead of a seed, on the operator's device.

    Raises:
        InputError: both a seed and a generator.

    Returns:
        Shape (probes + count,).
    """
    generator = seeds.given_generator(generator, seed, "squares", device=operator.device)
    rest = deflation(operator, found.spectrum)
    extra = Hutchinson(operator, rest, generator)
    grow(extra, 0, count)
    fixed = _deflated_square(found.spectrum, rest)
    return np.concatenate([found.squares, _squares(extra) + fixed])
