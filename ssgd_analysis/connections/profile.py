"""Loss and accuracy along a path, and the height of the barrier on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssgd_analysis.connections.path import WeightPath
from ssgd_analysis.curvature.operators.sampling import weighted_stderr
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.problem.recalibration import recalibration
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import borrowed_state


@dataclass(frozen=True)
class Profile:
    """Losses and accuracies along a path, on one split.

    Args:
        t: where, shape (points,), from 0 to 1.
        shares: each batch's share of the examples, shape (batches,).
        losses: of each batch, shape (points, batches).
        rights: share of right class labels, same shape; ``None`` without class labels.
        loss: mean over the examples, shape (points,).
        accuracy: same shape; NaN without class labels.
        label_shares: each batch's share of the labels that count, shape (batches,), or ``None``.
    """

    t: np.ndarray
    shares: np.ndarray
    losses: np.ndarray
    rights: np.ndarray | None
    loss: np.ndarray
    accuracy: np.ndarray
    label_shares: np.ndarray | None = None


@dataclass(frozen=True)
class Barrier:
    """A barrier on a path.

    Args:
        value: its height: 0 where nothing rises above the ends' connecting line; infinite where
            the loss is not finite.
        stderr: its sampling error over examples, its position held fixed; ``None`` at an end, with
            fewer than two batches, or where the value is not finite.
        at: the t where it is highest.
        extreme: the plain maximum of the loss, or minimum of the accuracy.
        extreme_at: where that is.
        ends: the loss, or accuracy, at both ends.
    """

    value: float
    stderr: float | None
    at: float
    extreme: float
    extreme_at: float
    ends: tuple[float, float]


def evaluate_path(
    path: WeightPath,
    splits: Mapping[str, Problem],
    t: Sequence[float] | np.ndarray,
    *,
    calibration: Sequence[Batch] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Profile]:
    """Loss and accuracy along a path.

    Args:
        path: its model comes back bit for bit.
        splits: problems over the path's model, by name.
        t: where.
        calibration: if given, BatchNorm's running statistics are estimated anew from these
            batches at every t, the ends too (interpolated ones fit no network in between:
            Jordan et al. 2023, arXiv 2211.08403); else they go straight from end to end.
        progress: receives every point.
    """
    losses: dict[str, list[list[float]]] = {name: [] for name in splits}
    rights: dict[str, list[list[float] | None]] = {name: [] for name in splits}
    problem = next(iter(splits.values()))
    recalibrate = None if calibration is None else recalibration(problem, calibration)
    with borrowed_state(path.model):
        for time in t:
            path.move_to(float(time))
            if recalibrate is not None:
                recalibrate()
            for name, problem in splits.items():
                loss, right = problem.batch_scores()
                losses[name].append(loss)
                rights[name].append(right)
            note = ", ".join(f"{n} {p.mean(losses[n][-1]):.3g}" for n, p in splits.items())
            progress.advance(1, note)
    return {n: _profile(p, np.asarray(t, float), losses[n], rights[n]) for n, p in splits.items()}


def _profile(
    problem: Problem, t: np.ndarray, losses: list[list[float]], rights: list[list[float] | None]
) -> Profile:
    labelled = [row for row in rights if row is not None]
    whole = len(labelled) == len(rights)
    return Profile(
        t=t,
        shares=np.array(problem.shares),
        losses=np.array(losses),
        rights=np.array(labelled) if whole else None,
        loss=np.array([problem.mean(row) for row in losses]),
        accuracy=np.array(
            [problem.label_mean(r) for r in labelled] if whole else [np.nan] * len(t)
        ),
        label_shares=np.array(problem.label_shares) if whole else None,
    )


def barrier(profile: Profile, *, accuracy: bool = False) -> Barrier | None:
    """The height of the barrier: max over t of L(t) − [(1 − t) L(0) + t L(1)].

    The error is that of the mean of the batches' own differences, paired at the same examples.
    It does not hold that the highest of several t was picked, what lies between two of them, the
    examples that statistics or a curve were fitted to, nor the seeds of the two ends.

    Args:
        profile: with t = 0 first and t = 1 last.
        accuracy: of the accuracy, as the largest fall below the line, instead of the loss.

    Returns:
        ``None`` for the accuracy where there are no class labels.

    Reference:
        Entezari et al. 2022, arXiv 2110.06296, definition 2.1. Frankle et al. 2020,
        arXiv 1912.05671, section 2, subtract the mean of the ends instead: ``extreme`` minus the
        mean of ``ends``.
    """
    if accuracy and profile.rights is None:
        return None
    t, sign = profile.t, -1.0 if accuracy else 1.0
    means = sign * (profile.accuracy if accuracy else profile.loss)
    batches = sign * (profile.rights if accuracy and profile.rights is not None else profile.losses)
    with np.errstate(invalid="ignore"):
        rise = _above_line(t, means)
    # the ends lie on the line, whatever rounding says; what is not finite is above all
    rise = np.where(np.isfinite(means), np.where((t == 0) | (t == 1), 0.0, rise), np.inf)
    top = int(rise.argmax())
    extreme = int(np.where(np.isfinite(means), means, np.inf).argmax())
    stderr = None
    if np.isfinite(rise[top]) and 0 < t[top] < 1:
        shares = profile.shares
        if accuracy and profile.label_shares is not None:
            shares = profile.label_shares
        found = weighted_stderr(shares, _above_line(t, batches)[top])
        stderr = None if found is None else float(found)
    return Barrier(
        value=float(rise[top]),
        stderr=stderr,
        at=float(t[top]),
        extreme=float(sign * means[extreme]),
        extreme_at=float(t[extreme]),
        ends=(float(sign * means[0]), float(sign * means[-1])),
    )


def _above_line(t: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values minus the line between their ends, along the first axis."""
    t = t.reshape(-1, *[1] * (values.ndim - 1))
    return values - ((1 - t) * values[0] + t * values[-1])


def barrier_text(found: Mapping[str, Any] | None, factor: float = 1) -> str:
    """A barrier's height ± its sampling error, out of ``connect.json``.

    Args:
        found: ``value`` and ``stderr``; ``None``: it was not measured.
        factor: of both, such as 100 for per cent.
    """
    if found is None or found["value"] is None:
        return "–" if found is None else "not finite"
    error = "" if found["stderr"] is None else f" ± {factor * found['stderr']:.2g}"
    return f"{factor * found['value']:.3g}{error}"
