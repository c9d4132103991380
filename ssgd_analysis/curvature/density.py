"""The spectral density of an operator, by stochastic Lanczos quadrature."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from ssgd_analysis.curvature.deflation import Deflation, deflation
from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.curvature.quadrature import Quadrature, quadrature
from ssgd_analysis.curvature.sampling import Quotients
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

GRID = 512
WIDTH = 0.01  # σ as a share of the width of the spectrum, spikes aside
NEAR_ZERO = 1e-3  # of the largest |λ|: the threshold of "negative" and "near zero"


@dataclass(frozen=True)
class Share:
    """A share of all eigenvalues.

    Args:
        value: mean over the probes.
        stderr: its standard error over the probes.
        low: 95% interval over the probes (Student's t), lower end.
        high: the same, upper end.
        lowest: the interval with what the nodes leave open, lower end.
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
    generator: torch.Generator,
    probes: int = 4,
    steps: int = 40,
    deflate: Tensor | None = None,
    known: Quotients | None = None,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Density:
    """φ(t) = (1/P) Σ N(t; λ_i, σ²), estimated from a few Lanczos runs.

    Each run starts from a Rademacher vector; its Ritz values are quadrature nodes and the
    squared first components of the projected eigenvectors their weights. Known eigenpairs are
    taken out of the runs and added as they are. σ is one hundredth of the width of the rest.

    A run of s steps knows the first 2s − 1 moments of what its probe sees, not single
    eigenvalues: a node stands for all eigenvalues around it. The share below a threshold is
    the weight of the nodes there; the true one lies between the sums without and with the two
    nodes next to the threshold (Chebyshev, Markov, Stieltjes), which ``lowest`` and
    ``highest`` of a :class:`Share` tell. Where most weight is on a node beside the threshold,
    as at the zero of a trained network's Hessian, that interval is wide and more steps are
    the only remedy.

    Args:
        operator: symmetric, shape (P, P).
        generator: on the operator's device.
        probes: Lanczos runs, at least 2 (for the error); they share their products.
        steps: products of each run, at least 2.
        deflate: orthonormal eigenvectors, shape (P, m).
        known: their quotients (``Spectrum.quotients``); else m products find them.
        deadline: of ``time.monotonic()``; the runs are cut short by it, at 2 steps or more.
        progress: told of every product.

    Raises:
        InputError: too few probes or steps, or vectors that are not orthonormal.

    Reference:
        Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019, section 2.
    """
    if probes < 2 or steps < 2:
        raise InputError(f"the density needs at least 2 probes and 2 steps, not {probes}, {steps}")
    rest = deflation(operator, deflate, known)
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
        negative=_share(runs, spikes, free, -math.inf, -threshold),
        near_zero=_share(runs, spikes, free, -threshold, threshold),
    )


def _gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-((distance / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def _grid(low: float, high: float, spikes: np.ndarray, sigma: float) -> np.ndarray:
    """Points over the bulk and over each spike outside, close enough to be integrated over."""
    low, high = low - 5 * sigma, high + 5 * sigma
    bulk = np.linspace(low, high, GRID)
    around = (spikes[:, None] + sigma * np.linspace(-8, 8, 41)).ravel()
    return np.sort(np.concatenate([bulk, around[(around < low) | (around > high)]]))


def _share(runs: Quadrature, spikes: np.ndarray, free: int, low: float, high: float) -> Share:
    """The share of eigenvalues in (low, high], with its errors."""
    table = shares(runs, spikes, free, low, high)
    value, lowest, highest = table.mean(axis=0)
    errors = table.std(axis=0, ddof=1) / math.sqrt(len(table))
    wide = student.ppf(0.975, len(table) - 1) * errors
    ends = np.clip([value - wide[0], value + wide[0], lowest - wide[1], highest + wide[2]], 0, 1)
    return Share(float(value), float(errors[0]), *(float(end) for end in ends))


def shares(runs: Quadrature, spikes: np.ndarray, free: int, low: float, high: float) -> np.ndarray:
    """Each run's share of eigenvalues in (low, high], and the least and most that it can be.

    Args:
        runs: of the deflated operator.
        spikes: the eigenvalues known.
        free: how many eigenvalues the runs stand for.
        low: lower end, outside.
        high: upper end, inside.

    Returns:
        Shape (runs, 3).
    """
    n = free + len(spikes)
    fixed = int(((spikes > low) & (spikes <= high)).sum())
    rows = []
    for nodes, weights, exact in zip(runs.nodes, runs.weights, runs.exact, strict=True):
        above, below = _cumulative(nodes, weights, high, exact), np.zeros(3)
        if low > -math.inf:
            below = _cumulative(nodes, weights, low, exact)
        rows.append([above[0] - below[0], above[1] - below[2], above[2] - below[1]])
    return (fixed + free * np.clip(rows, 0, 1)) / n


def _cumulative(nodes: np.ndarray, weights: np.ndarray, at: float, exact: bool) -> np.ndarray:
    """Weight of the nodes up to ``at``, and the least and most that can be there."""
    count = int((nodes <= at).sum())
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    if exact:
        return np.full(3, sums[count])
    return np.array([sums[count], sums[max(count - 1, 0)], sums[min(count + 1, len(nodes))]])
