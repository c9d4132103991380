"""The spectral density of an operator, by stochastic Lanczos quadrature."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.eigenpairs import Spectrum
from ssgd_analysis.curvature.estimates.cumulative import cumulative_bounds
from ssgd_analysis.curvature.estimates.deflation import Deflation, deflation
from ssgd_analysis.curvature.estimates.quadrature import Quadrature, quadrature
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

GRID = 512
WIDTH = 0.01  # σ as a share of the width of the spectrum, spikes aside
REACH = 0.1  # of the threshold: a vector that may move eigenvalues farther is no eigenvector
NEAR_ZERO = 1e-3  # of the largest |λ|: the threshold of "negative" and "near zero"


@dataclass(frozen=True)
class Share:
    """A share of all eigenvalues: what is known is the interval, not the value.

    Args:
        value: the middle of the quadrature's bounds, their mean over the probes.
        stderr: that of a normal law with the same 95% interval, ``high`` − ``low`` over 3.92.
        low: 95% interval of what the moments leave open, probes and rounding; lower end.
        high: the same, upper end.
        lowest: the same at 99.9%, lower end.
        highest: the same, upper end.
    """

    value: float
    stderr: float
    low: float
    high: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Density:
    """A density of eigenvalues, smoothed by a Gaussian; integrates to one.

    Args:
        grid: eigenvalues, ascending: 512 over the spectrum without spikes, and 41 over each
            spike beyond it.
        density: share of all eigenvalues per unit, on the grid.
        stderr: the probes' standard error at each grid point.
        sigma: standard deviation of the smoothing Gaussian.
        probes: Lanczos runs averaged.
        steps: products of the longest run.
        spikes: the known eigenvalues, each with the weight 1/P; part of ``density``.
        threshold: c of the two shares.
        negative: share of eigenvalues below −c.
        near_zero: share of eigenvalues in [−c, c].
    """

    grid: np.ndarray
    density: np.ndarray
    stderr: np.ndarray
    sigma: float
    probes: int
    steps: int
    spikes: list[float]
    threshold: float
    negative: Share
    near_zero: Share


def spectral_density(
    operator: Operator,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    probes: int = 4,
    steps: int = 40,
    deflate: Tensor | Spectrum | Deflation | None = None,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Density:
    """φ(t) = (1/P) Σ N(t; λ_i, σ²), estimated from a few Lanczos runs.

    Each run starts from a Rademacher vector; its Ritz values are quadrature nodes and the
    squared first components of the projected eigenvectors their weights. Known eigenpairs are
    taken out of the runs and added as they are. σ is one hundredth of the width of the rest.

    A run of s steps knows the first 2s moments of what its probe sees, not single eigenvalues: a
    node stands for all eigenvalues around it. The share below a threshold lies between bounds
    that no other function of these moments beats (Chebyshev, Markov, Stieltjes). The interval of
    a :class:`Share` is theirs, widened by three errors: of the probes, by Wilson's score with the
    variance 2 s (1 − s) / n of a probe in n dimensions, the most that a Rademacher or a Gaussian
    one has; of the products' rounding, measured by what the runs have beside their three
    diagonals; and of deflated vectors that are eigenvectors up to a residual only. Where most
    weight is beside the threshold, as at the zero of a trained network's Hessian, the interval is
    wide, and more steps are the only remedy.

    Args:
        operator: symmetric, shape (P, P).
        seed: of the random vectors, by default 0; it picks the stream ``"density"``.
        generator: instead of a seed, on the operator's device, for callers that share streams.
        probes: Lanczos runs, at least 2 (for the error); they share their products.
        steps: products of each run, at least 2.
        deflate: the eigenpairs known: a spectrum of this operator, at no product, or orthonormal
            vectors, shape (P, m), at m products.
        deadline: of ``time.monotonic()``; the runs are cut short by it, at 2 steps or more.
        progress: reports every product.

    Raises:
        InputError: too few probes or steps, vectors that are not orthonormal, or both a seed and
            a generator.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, spectral_density
        >>> values = torch.cat([torch.zeros(90), torch.linspace(1, 2, 10)]).double()
        >>> found = spectral_density(DenseOperator(torch.diag(values)), seed=0)
        >>> found.near_zero.low < 0.9 < found.near_zero.high
        True

    Reference:
        Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019, section 2.
    """
    generator = seeds.given_generator(generator, seed, "density", device=operator.device)
    if probes < 2 or steps < 2:
        raise InputError(
            "the density needs at least 2 probes and 2 steps,"
            f" not {probes} probes and {steps} steps"
        )
    rest = deflation(operator, deflate)
    runs = quadrature(
        operator,
        rest,
        generator=generator,
        probes=probes,
        steps=steps,
        deadline=deadline,
        progress=progress,
    )
    return smoothed(runs, rest)


def smoothed(runs: Quadrature, rest: Deflation) -> Density:
    """The density from nodes and weights of the rest, and the known eigenvalues.

    Args:
        runs: of the deflated operator.
        rest: what was deflated.
    """
    spikes = np.sort(rest.values())
    n, free = len(spikes) + rest.free, rest.free
    inner = np.concatenate(runs.nodes) if free else spikes
    low, high = float(inner.min()), float(inner.max())
    everything = np.concatenate([inner, spikes])
    size = max(float(np.abs(everything).max()), 1e-12)
    # one eigenvalue: a spike, of a width by its size
    sigma = WIDTH * (high - low if high - low > 1e-6 * size else size)
    grid = _grid(low, high, spikes, sigma)
    bell = lambda nodes: _gaussian(grid[:, None] - nodes, sigma)  # noqa: E731
    curves = np.array([bell(v) @ w for v, w in zip(runs.nodes, runs.weights, strict=True)])
    probes = len(curves)
    threshold = NEAR_ZERO * size
    return Density(
        grid=grid,
        density=(free * curves.mean(axis=0) + bell(spikes).sum(axis=1)) / n,
        stderr=free / n * curves.std(axis=0, ddof=1) / math.sqrt(probes),
        sigma=sigma,
        probes=probes,
        steps=max(len(v) for v in runs.nodes),
        spikes=[float(value) for value in spikes[::-1]],
        threshold=threshold,
        negative=_share(runs, rest, -math.inf, -threshold, REACH * threshold),
        near_zero=_share(runs, rest, -threshold, threshold, REACH * threshold),
    )


def _gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-((distance / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def _grid(low: float, high: float, spikes: np.ndarray, sigma: float) -> np.ndarray:
    """Points over the bulk and over each spike outside, close enough to be integrated over."""
    low, high = low - 5 * sigma, high + 5 * sigma
    bulk = np.linspace(low, high, GRID)
    around = (spikes[:, None] + sigma * np.linspace(-8, 8, 41)).ravel()
    return np.sort(np.concatenate([bulk, around[(around < low) | (around > high)]]))


def _share(runs: Quadrature, rest: Deflation, low: float, high: float, reach: float) -> Share:
    """The share of eigenvalues in (low, high], with its errors.

    Args:
        runs: of the deflated operator.
        rest: what was deflated.
        low: lower end, outside.
        high: upper end, inside.
        reach: a vector of the deflation whose residual may move eigenvalues at the ends farther
            than this counts as one whose eigenvalue is not known.
    """
    spikes, free = rest.values(), rest.free
    gaps = np.abs(spikes[:, None] - [end for end in (low, high) if math.isfinite(end)])
    moved = _moved(rest.residuals[:, None], gaps)
    settled = (moved < np.minimum(gaps, reach)).all(axis=1)
    fixed, unsettled = (
        int(((spikes > low) & (spikes <= high) & settled).sum()),
        int((~settled).sum()),
    )
    least = most = 0.0
    count = math.inf
    if free:
        shift = float(moved[settled].sum(axis=0).max(initial=0.0))
        reaches = 2 * runs.rounding + shift
        rows = [
            _between(*run, low, high, each) for run, each in zip(runs.jacobi, reaches, strict=True)
        ]
        least, most = np.mean(rows, axis=0).tolist()
        count = len(rows) * free / 2
    total = free + len(spikes)

    def interval(confidence: float) -> tuple[float, float]:
        below, above = (_score(least, count, confidence)[0], _score(most, count, confidence)[1])
        # an eigenvector that is none moves at most one eigenvalue across (Cauchy's interlacing)
        return (fixed + free * below) / total, (fixed + unsettled + free * above) / total

    (inner, outer), (lowest, highest) = interval(0.95), interval(0.999)
    return Share(
        value=(fixed + unsettled / 2 + free * (least + most) / 2) / total,
        stderr=(outer - inner) / (2 * float(ndtri(0.975))),
        low=inner,
        high=outer,
        lowest=lowest,
        highest=highest,
    )


def _moved(residuals: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """How far a coupling of this norm can move an eigenvalue at this distance from the vector's.

    Quadratic in the residual where that is small beside the gap (Li and Li 2005).
    """
    square = residuals**2
    return 2 * square / np.maximum(gaps + np.sqrt(gaps**2 + 4 * square), 1e-300)


def _between(
    diagonal: np.ndarray, off: np.ndarray, low: float, high: float, away: float
) -> tuple[float, float]:
    """Least and most weight in (low, high], eigenvalues being off by up to ``away``."""
    least = cumulative_bounds(diagonal, off, high - away)[0]
    most = cumulative_bounds(diagonal, off, high + away)[1]
    if low > -math.inf:
        least -= cumulative_bounds(diagonal, off, low + away)[1]
        most -= cumulative_bounds(diagonal, off, low - away)[0]
    return max(0.0, least), min(1.0, most)


def _score(share: float, count: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share estimated with the variance share (1 − share) / count."""
    square = float(ndtri(0.5 + confidence / 2)) ** 2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
