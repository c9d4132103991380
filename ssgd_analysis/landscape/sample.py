"""A landscape of several checkpoints: grids, directions, and keeping what is done."""

import dataclasses
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import pair
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.files import write_atomically
from ssgd_analysis.landscape.directions import (
    NORMALIZATIONS,
    Direction,
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.surface import Grid, evaluate_grid
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import flattened

DIRECTIONS = ("random", "eigen", "trajectory", "between")
BN = ("frozen", "recalibrate")
SAVE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class LandscapeSettings:
    """What to draw.

    Args:
        dims: 1 or 2.
        directions: ``random``, ``eigen``, ``trajectory`` or ``between``.
        normalize: ``filter``, ``layer`` or ``none``.
        span: the grid runs from −span to span; for ``between`` from −span to 1 + span.
        points: for each axis.
        repeats: random directions sampled, for a band.
        bn: BatchNorm's statistics ``frozen``, or ``recalibrate``: estimated anew at every point.
        seed: of the directions.

    Raises:
        InputError: anything unknown or out of range.
    """

    dims: int = 1
    directions: str = "random"
    normalize: str = "filter"
    span: float = 1.0
    points: int = 41
    repeats: int = 1
    bn: str = "frozen"
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("directions", self.directions, DIRECTIONS),
            ("normalization", self.normalize, NORMALIZATIONS),
            ("BatchNorm choice", self.bn, BN),
        ):
            if value not in known:
                raise unknown(kind, value, known)
        if self.dims not in (1, 2):
            raise InputError(f"--dims {self.dims} should be 1 or 2")
        if not np.isfinite(self.span) or self.span < 0:
            raise InputError(f"--span {self.span} should be a finite number ≥ 0")
        if self.span == 0 and self.directions != "between":
            raise InputError("--span 0 would be a single point")
        least = 4 if self.directions == "between" and self.span > 0 else 2
        if self.points < least:
            raise InputError(f"--points {self.points} should be at least {least}")
        if self.directions == "between" and self.dims != 1:
            raise InputError("--directions between is a line: --dims 1")
        if self.repeats < 1 or (self.repeats > 1 and self.directions != "random"):
            raise InputError(
                f"--repeats {self.repeats} should be at least 1, and 1 but for random directions"
            )

    def axes(self) -> list[np.ndarray]:
        """Coordinates of the grid, one array for each dimension."""
        if self.directions == "between":
            return [_through_zero_and_one(self.span, self.points)]
        return [np.linspace(-self.span, self.span, self.points)] * self.dims


@dataclass(frozen=True)
class Subject:
    """One checkpoint to draw.

    Args:
        name: for the legend.
        problem: at its weights.
        calibration: batches for ``bn="recalibrate"``.
        path: named weights of its run's kept checkpoints, for ``trajectory``.
        loss: name of the loss, so that kept points of another loss do not count.
    """

    name: str
    problem: Problem
    calibration: list[Batch]
    path: Sequence[dict[str, Tensor]] = ()
    loss: str = ""


def sample_landscape(
    subjects: Sequence[Subject],
    settings: LandscapeSettings,
    *,
    keep: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> tuple[list[str], dict[str, np.ndarray], list[dict[str, Any]]]:
    """Evaluate the landscape of every subject.

    Args:
        subjects: one or more; for ``between`` exactly two, the ends of the line.
        settings: what to draw.
        keep: a file for what is done so far, so that a killed call can go on.
        resume: take up what ``keep`` holds of the same settings and weights.
        progress: told of every point.

    Returns:
        Names of the grids (subjects × repeats); arrays ``alpha``, ``beta`` (2-D), ``loss`` and
        ``accuracy`` with a leading axis for subjects and one for repeats, each only where
        there are several; and for each grid its facts (cosine between the directions).

    Raises:
        InputError: not two subjects for ``between``, or two of other shapes.
    """
    between = settings.directions == "between"
    if between and len(subjects) != 2:
        raise InputError(f"--directions between needs two checkpoints, not {len(subjects)}")
    jobs = [(subjects[0], 0)] if between else [
        (subject, repeat) for subject in subjects for repeat in range(settings.repeats)
    ]  # fmt: skip
    grids = [Grid.empty(settings.axes()) for _ in jobs]
    key = fingerprint(subjects, settings)
    if resume and keep is not None and keep.is_file():
        _load(keep, key, grids)
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        if keep is not None and time.monotonic() - saved > SAVE_SECONDS:
            _store(keep, key, grids)
            saved = time.monotonic()

    facts = []
    for (subject, repeat), grid in zip(jobs, grids, strict=True):
        if between:
            directions = [_line(subjects[0].problem, subjects[1].problem)]
            rest = _RestOfLine(subjects[0].problem, subjects[1].problem)
        else:
            directions = _directions(subject, settings, repeat, progress)
            rest = None
        facts.append({"checkpoint": subject.name, "repeat": repeat, **_facts(directions)})
        evaluate_grid(
            subject.problem,
            directions,
            grid,
            recalibrate=subject.calibration if settings.bn == "recalibrate" else None,
            rest=rest,
            save=save,
            progress=progress,
        )
    names = [
        " – ".join(s.name for s in subjects) if between
        else subject.name + (f" #{repeat}" if settings.repeats > 1 else "")
        for subject, repeat in jobs
    ]  # fmt: skip
    return names, _arrays(settings, grids, 1 if between else len(subjects)), facts


def _directions(
    subject: Subject, settings: LandscapeSettings, repeat: int, progress: Progress
) -> list[Direction]:
    count = settings.dims
    if settings.directions == "random":
        found = random_directions(subject.problem, count, seed=settings.seed, repeat=repeat)
    elif settings.directions == "eigen":
        found = eigen_directions(subject.problem, count, seed=settings.seed, progress=progress)
    else:
        found = trajectory_directions(subject.problem, subject.path, count)
    return normalized(subject.problem, found, settings.normalize)


def _through_zero_and_one(span: float, points: int) -> np.ndarray:
    """From −span to 1 + span, nearly even, with 0 and 1 among the points."""
    if span == 0:
        return np.linspace(0, 1, points)
    outside = max(1, min(round((points - 1) * span / (1 + 2 * span)), (points - 2) // 2))
    inside = points - 2 * outside
    return np.concatenate(
        [
            np.linspace(-span, 0, outside, endpoint=False),
            np.linspace(0, 1, inside),
            np.linspace(1, 1 + span, outside + 1)[1:],
        ]
    )


def _line(start: Problem, end: Problem) -> Direction:
    a, b = start.parameters, end.parameters
    if list(a) != list(b) or any(a[n].shape != b[n].shape for n in a):
        raise InputError("the two checkpoints are not of the same model: no line between them")
    return [(b[name] - a[name]).detach() for name in a]


class _RestOfLine:
    """Moves BatchNorm statistics and frozen parameters along the line with the weights.

    Beyond the ends they stay at the end's: a variance that is extrapolated turns negative.
    """

    def __init__(self, start: Problem, end: Problem) -> None:
        buffers = zip(start.model.buffers(), end.model.buffers(), strict=True)
        parameters = zip(start.model.parameters(), end.model.parameters(), strict=True)
        self.moves = [
            (a, a.detach().clone(), b.detach().clone())
            for a, b in (*buffers, *parameters)
            if a.is_floating_point() and not a.requires_grad
        ]

    def __call__(self, alpha: float) -> None:
        inside = min(max(alpha, 0.0), 1.0)
        for tensor, start, end in self.moves:
            tensor.copy_(end if inside == 1 else start + inside * (end - start))


def _facts(directions: list[Direction]) -> dict[str, Any]:
    flat = [flattened(direction).double() for direction in directions]
    facts: dict[str, Any] = {"norms": [float(vector.norm()) for vector in flat]}
    if len(flat) == 2:
        facts["cosine"] = float(flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm()))
    return facts


def _arrays(
    settings: LandscapeSettings, grids: Sequence[Grid], subjects: int
) -> dict[str, np.ndarray]:
    lead = [n for n in (subjects, settings.repeats) if n > 1]
    shape = (*lead, *grids[0].loss.shape)
    arrays = {
        "loss": np.stack([grid.loss for grid in grids]).reshape(shape),
        "accuracy": np.stack([grid.accuracy for grid in grids]).reshape(shape),
    }
    return dict(zip(("alpha", "beta"), grids[0].axes, strict=False)) | arrays


def fingerprint(subjects: Sequence[Subject], settings: LandscapeSettings) -> str:
    """What must be the same for points of an earlier call to count."""
    digest = hashlib.blake2b(json.dumps(dataclasses.asdict(settings)).encode(), digest_size=16)
    for subject in subjects:
        digest.update(f"{subject.loss} {subject.problem.fingerprint()}".encode())
        tensors: list[Tensor] = []
        if settings.bn == "recalibrate":
            inputs = [pair(batch)[0] for batch in subject.calibration]
            tensors += [tensor for part in inputs for tensor in batching.tensors(part)]
        if settings.directions == "trajectory":
            tensors += [tensor for weights in subject.path for tensor in weights.values()]
        for tensor in tensors:
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _store(path: Path, key: str, grids: Sequence[Grid]) -> None:
    arrays = {"key": np.array(key)}
    for number, grid in enumerate(grids):
        for name in ("loss", "accuracy", "done"):
            arrays[f"{name}{number}"] = getattr(grid, name)
    save_arrays(path, arrays)


def _load(path: Path, key: str, grids: Sequence[Grid]) -> None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                raise InputError(
                    f"{path} holds points of another landscape: name another --out, or leave out"
                    " --resume"
                )
            for number, grid in enumerate(grids):
                for name in ("loss", "accuracy", "done"):
                    setattr(grid, name, kept[f"{name}{number}"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error}; leave out --resume") from error


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz`` file atomically.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
