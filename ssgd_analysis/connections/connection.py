"""One path from a network to another: found, evaluated, and described by plain values."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssgd_analysis.batch import tensors
from ssgd_analysis.connections.curve import Minibatches, train_curve
from ssgd_analysis.connections.matching import weight_matching
from ssgd_analysis.connections.path import WeightPath, line
from ssgd_analysis.connections.profile import Barrier, Profile, barrier, evaluate_path
from ssgd_analysis.errors import unknown
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.settings.connection import ConnectionSettings
from ssgd_analysis.weights.batchnorm import has_statistics

PATHS = {
    "line": "straight",
    "matched": "straight, to the second network with its units permuted to match the first",
    "bezier": "quadratic Bezier curve, trained",
    "chain": "polygonal chain, trained",
}


@dataclass(frozen=True)
class Connection:
    """A path, the losses along it, and its record of plain values.

    Args:
        path: the path.
        profiles: by split.
        record: ``path``, ``barrier``, ``accuracy_barrier``, ``length``, ``relative_length``,
            ``permuted``, ``notes``, ``cost``.
    """

    path: WeightPath
    profiles: dict[str, Profile]
    record: dict[str, Any]


def find_connection(
    kind: str,
    splits: Mapping[str, Problem],
    other: nn.Module,
    settings: ConnectionSettings,
    *,
    calibration: Sequence[Batch] = (),
    minibatches: Minibatches | None = None,
    progress: Progress = SILENT,
) -> Connection:
    """Find a path from one network to another and measure the barrier on it.

    Args:
        kind: one of :data:`PATHS`.
        splits: problems over the first network by name; the first one is what curves are
            trained and units are matched on.
        other: the second network, of the same architecture.
        settings: how paths are found and evaluated.
        calibration: batches for BatchNorm's statistics; default: those of the first split.
        minibatches: see :func:`train_curve`.
        progress: receives epochs and points.

    Raises:
        InputError: an unknown kind, or two architectures.
        WorkError: the curve's training diverged.
    """
    if kind not in PATHS:
        raise unknown("path", kind, PATHS)
    began = time.perf_counter()
    problem = next(iter(splits.values()))
    path, share, forwards, gradients = line(problem.model, other), None, 0, 0
    notes: list[str] = []
    tracked = has_statistics(problem.model)
    recalibrated = settings.bn == "recalibrate" and tracked
    batches = calibration or problem.batches
    distance = path.length()
    if kind == "matched":
        progress.start("matching units")
        matching = weight_matching(problem, other, seed=settings.seed)
        path = WeightPath(path.model, path.start, matching.end)
        share, notes, forwards = matching.share, list(matching.left), matching.forwards
    elif kind in ("bezier", "chain"):
        path, gradients = train_curve(
            path,
            problem,
            bends=1 if kind == "bezier" else settings.bends,
            bezier=kind == "bezier",
            epochs=settings.epochs,
            lr=settings.lr,
            minibatches=minibatches,
            batch_statistics=settings.bn == "recalibrate",
            seed=settings.seed,
            progress=progress,
        )
    progress.start(f"along {kind}", settings.points)
    profiles = evaluate_path(
        path,
        splits,
        np.linspace(0, 1, settings.points),
        calibration=batches if recalibrated else None,
        progress=progress,
    )
    each = sum(len(p.batches) for p in splits.values()) + (len(batches) if recalibrated else 0)
    holes = int(sum((~np.isfinite(profile.loss)).sum() for profile in profiles.values()))
    if holes:
        notes.append(f"the loss is not finite at {holes} points, so the barrier is not known there")
    if tracked and not recalibrated:
        notes.append(
            "BatchNorm's statistics are interpolated between the ends (--bn frozen): they do not"
            " fit the networks inside the path"
        )
    record = {
        "path": kind,
        "barrier": {name: _loss_record(barrier(p)) for name, p in profiles.items()},
        "accuracy_barrier": {
            name: _accuracy_record(barrier(p, accuracy=True)) for name, p in profiles.items()
        },
        "length": path.length(),
        "relative_length": path.length() / distance if distance else None,
        "permuted": share,
        "notes": notes,
        "cost": {
            "forwards": forwards + settings.points * each,
            "gradients": gradients,
            "seconds": time.perf_counter() - began,
        },
    }
    return Connection(path, profiles, record)


OTHER_EXAMPLES = (
    "the checkpoints were trained on different examples or labels: losses are those of the"
    " first one's examples"
)


def same_examples(one: Problem, two: Problem) -> bool:
    """Whether two problems hold the same examples in the same batches."""
    left, right = one.batches, two.batches
    return len(left) == len(right) and all(map(_same, left, right))


def _same(one: Batch, two: Batch) -> bool:
    left, right = tensors(one), tensors(two)
    return len(left) == len(right) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(left, right, strict=True)
    )


def _loss_record(found: Barrier | None) -> dict[str, Any] | None:
    return _record(found, "max_loss", "max_at")


def _accuracy_record(found: Barrier | None) -> dict[str, Any] | None:
    return _record(found, "min_accuracy", "min_at")


def _record(found: Barrier | None, extreme: str, extreme_at: str) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": found.value,
        "stderr": found.stderr,
        "at": found.at,
        extreme: found.extreme,
        extreme_at: found.extreme_at,
        "ends": list(found.ends),
    }
