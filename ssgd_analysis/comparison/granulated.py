"""The granulated coefficient: rank correlation with all settings but one held fixed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ssgd_analysis.comparison.kendall import tau_a


@dataclass(frozen=True)
class Axis:
    """The coefficient of one setting.

    Args:
        psi: mean of τ over the subspaces where only this setting varies.
        subspaces: how many there are.
        values: how many values the setting takes.
    """

    psi: float
    subspaces: int
    values: int


@dataclass(frozen=True)
class Granulated:
    """The coefficient Ψ.

    Args:
        psi: mean over the axes; ``None``: there is none.
        ci95: over seeds, given these settings; ``None``: it can't be had.
        n: runs that stand in some subspace.
        axes: by setting.
        why: what is missing, if something is.
    """

    psi: float | None
    ci95: tuple[float, float] | None
    n: int
    axes: dict[str, Axis] = field(default_factory=dict)
    why: str = ""


def granulated(
    points: Sequence[Mapping[str, Any]],
    x: Sequence[float],
    y: Sequence[float],
    seeds: Sequence[int],
) -> Granulated:
    """Ψ: does the metric order runs rightly that differ in one setting alone?

    A third thing that moves both metric and error, as the learning rate does, makes a plain τ
    large; it can't when it is held fixed. The seed is held fixed too but is no axis. In a
    subspace τ counts a tie as zero.

    Args:
        points: for each run the settings that vary, by name; the same names in all.
        x: the metric.
        y: the error.
        seeds: of the runs.

    Reference:
        Jiang et al. 2020 (arXiv 1912.02178), section 4, the granulated Kendall coefficient.
    """
    names = list(points[0]) if points else []
    if not names:
        return Granulated(None, None, 0, why="no setting varies")
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    found, used = _axes(points, a, b, seeds)
    if not found:
        why = f"no two runs of one seed differ in {' or '.join(names)} alone"
        return Granulated(None, None, 0, why=why)
    psi = float(np.mean([axis.psi for axis in found.values()]))
    interval, why = _interval(points, a, b, seeds, psi)
    return Granulated(psi, interval, len(used), found, why)


def _axes(
    points: Sequence[Mapping[str, Any]], x: np.ndarray, y: np.ndarray, seeds: Sequence[int]
) -> tuple[dict[str, Axis], set[int]]:
    """Each setting's coefficient, and which runs were used."""
    axes, used = {}, set()
    for name in points[0]:
        subspaces: dict[str, list[int]] = {}
        for index, (point, seed) in enumerate(zip(points, seeds, strict=True)):
            rest = {key: value for key, value in point.items() if key != name}
            subspaces.setdefault(repr((seed, sorted(rest.items()))), []).append(index)
        members = [runs for runs in subspaces.values() if len(runs) > 1]
        if members:
            values = len({repr(point[name]) for point in points})
            psi = float(np.mean([tau_a(x[runs], y[runs]) for runs in members]))
            axes[name] = Axis(psi, len(members), values)
            used |= {run for runs in members for run in runs}
    return axes, used


def _interval(
    points: Sequence[Mapping[str, Any]],
    x: np.ndarray,
    y: np.ndarray,
    seeds: Sequence[int],
    psi: float,
) -> tuple[tuple[float, float] | None, str]:
    """Student's t over the Ψ of each seed alone: other seeds, the same settings."""
    alone = []
    for seed in dict.fromkeys(seeds):
        runs = [index for index, own in enumerate(seeds) if own == seed]
        found, _ = _axes([points[run] for run in runs], x[runs], y[runs], [seed] * len(runs))
        if found:
            alone.append(np.mean([axis.psi for axis in found.values()]))
    count = len(alone)
    if count < 2:
        return None, "one seed gives no interval"
    if np.ptp(alone) == 0:
        return None, "all seeds give the same value: no spread to judge by"
    half = float(stdtrit(count - 1, 0.975) * np.std(alone, ddof=1)) / math.sqrt(count)
    return (max(-1.0, psi - half), min(1.0, psi + half)), ""
