"""A landscape of several checkpoints: frames, their points, and what is known of them."""

import dataclasses
import functools
import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.errors import InputError
from ssgd_analysis.landscape.directions import inner
from ssgd_analysis.landscape.grid import Grid
from ssgd_analysis.landscape.named_problem import NamedProblem
from ssgd_analysis.landscape.partial import PartialResults
from ssgd_analysis.landscape.plane_curvature import UNSEEN, PlaneCurvature
from ssgd_analysis.landscape.sampling import GridSampler, Plans
from ssgd_analysis.landscape.settings import LandscapeSettings
from ssgd_analysis.landscape.slice import LandscapeSlice, frames
from ssgd_analysis.landscape.valley import asymmetry
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks
from ssgd_analysis.weights.batchnorm import has_statistics


@dataclass(frozen=True)
class Landscape:
    """What was computed.

    Args:
        names: of the grids (subjects × repeats).
        arrays: ``alpha``, ``beta`` (2-D), ``loss``, ``accuracy``, with a test split ``test_loss``
            and ``test_accuracy``, with ``adaptive`` ``measured``; loss and the like with a leading
            axis for subjects and one for repeats, each only where there are several.
        grids: for each grid what is known of it, as in the record.
        units: what the coordinates are.
        plans: how the points of the first grid were evaluated.
    """

    names: list[str]
    arrays: dict[str, np.ndarray]
    grids: list[dict[str, Any]]
    units: dict[str, str]
    plans: Plans


def sample_landscape(
    subjects: Sequence[NamedProblem],
    settings: LandscapeSettings,
    *,
    keep: Path | None = None,
    resume: bool = False,
    tune: bool = False,
    plans: Plans | None = None,
    key: str | None = None,
    ranks: Ranks = SINGLE,
    progress: Progress = SILENT,
) -> Landscape:
    """Evaluate the landscape of every subject.

    Args:
        subjects: one or more; for ``between`` the two ends of a line or three points of a plane.
        settings: what to draw.
        keep: a folder for what is done so far, so that a killed call can go on.
        resume: take up what ``keep`` holds of the same settings and weights.
        tune: choose how to evaluate by a short measurement; else by rules that repeat.
        plans: how to evaluate, as an earlier landscape said.
        key: the :func:`fingerprint` of subjects and settings, where it is known already.
        ranks: the processes that share the points.
        progress: told of every point.

    Raises:
        InputError: see :func:`ssgd_analysis.landscape.slice.frames`; kept points that are damaged
            or of another landscape; more points than disk or memory hold.
        WorkError: the disk is full.
    """
    count = 1 if settings.directions == "between" else len(subjects)
    _check_size(settings, count * settings.repeats, subjects[0].test is not None, keep)
    kept = None
    if keep is not None:
        kept = PartialResults(keep, key or fingerprint(subjects, settings), ranks.rank)
    if kept is not None and not resume:
        ranks.once(kept.clear)
    sight = PlaneCurvature(settings.seed, progress)
    given, used, grids, facts = dict(plans or {}), [], [], []
    made = frames(subjects, settings, ranks=ranks, progress=progress)
    for number, frame in enumerate(made):
        grid = Grid.empty(frame.axes, test=frame.subject.test is not None)
        held = kept.load(number, grid) if kept is not None and resume else None
        points = GridSampler(
            frame, settings, grid, number,
            keep=kept, plans=held or given, tune=tune, ranks=ranks, progress=progress,
        )  # fmt: skip
        seen = dict(UNSEEN)
        if (
            settings.curvature
            and settings.bn == "recalibrate"
            and has_statistics(frame.subject.problem.model)
        ):
            seen["share_note"] = "curvatures are those of frozen statistics"
        elif settings.curvature:
            seen = ranks.once(functools.partial(sight.facts, frame))
        found = points.some() if settings.adaptive else points.all()
        given = points.plans if tune else given
        used.append(points.plans)
        grids.append(grid)
        facts.append(_facts(frame, grid) | seen | found)
    return Landscape(
        [frame.name for frame in made],
        _arrays(settings, grids, count),
        facts,
        settings.units,
        used[0],
    )


def _check_size(settings: LandscapeSettings, grids: int, test: bool, keep: Path | None) -> None:
    """Refuse more points than can be held, before any is computed."""
    each = 8 * (4 if test else 2) + 1  # values and whether it is done
    needed = grids * math.prod(settings.shape) * each
    room = {"memory": psutil.virtual_memory().available}
    if keep is not None:
        place = next(p for p in [keep.absolute(), *keep.absolute().parents] if p.exists())
        room["disk"] = shutil.disk_usage(place).free
    for kind, free in room.items():
        if 3 * needed > free:  # what is kept, the answer, and its copy while it is written
            raise InputError(
                f"--points {settings.points} makes {grids * math.prod(settings.shape):.3g} points:"
                f" {3 * needed / 2**30:.3g} GiB, but the {kind} has {free / 2**30:.3g} GiB left"
            )


def _facts(frame: LandscapeSlice, grid: Grid) -> dict[str, Any]:
    directions = frame.directions
    lengths = [inner(d, d) ** 0.5 for d in directions]
    facts: dict[str, Any] = {
        "checkpoint": frame.subject.name, "repeat": frame.repeat, "norms": lengths
    }  # fmt: skip
    if len(directions) == 2:
        facts["cosine"] = inner(*directions) / math.prod(lengths)
    names = ("alpha", "beta")
    facts["marks"] = [
        {"label": mark.label, **dict(zip(names, mark.place, strict=False)), **mark.values}
        for mark in frame.marks
    ]
    if frame.eigenvalues:
        facts["eigenvalues"] = frame.eigenvalues
    if frame.move_rest is not None and len(directions) == 1:
        facts["asymmetry"] = asymmetry(grid.axes[0], grid.values["loss"])
    facts["holes"] = int((~np.isfinite(grid.values["loss"])).sum())
    return facts | frame.facts


def _arrays(
    settings: LandscapeSettings, grids: Sequence[Grid], subjects: int
) -> dict[str, np.ndarray]:
    lead = [n for n in (subjects, settings.repeats) if n > 1]
    arrays = dict(zip(("alpha", "beta"), grids[0].axes, strict=False))
    for name in grids[0].values:
        stacked = np.stack([grid.values[name] for grid in grids])
        arrays[name] = stacked.reshape(*lead, *settings.shape)
    if settings.adaptive:
        arrays["measured"] = np.stack([g.done for g in grids]).reshape(*lead, *settings.shape)
    return arrays


def fingerprint(subjects: Sequence[NamedProblem], settings: LandscapeSettings) -> str:
    """A hash of all that the points depend on: settings, weights, buffers, data, calibration."""
    digest = hashlib.blake2b(json.dumps(dataclasses.asdict(settings)).encode(), digest_size=16)
    for subject in subjects:
        for problem in subject.problems:
            digest.update(f"{subject.code} {problem.fingerprint()}".encode())
        tensors: list[Tensor] = []
        if settings.bn == "recalibrate":
            tensors += [t for batch in subject.calibration for t in batching.tensors(batch)]
        if settings.directions == "trajectory":
            tensors += [tensor for weights in subject.path.values() for tensor in weights.values()]
        if settings.directions == "vectors":
            for vector in subject.vectors:
                tensors += [vector] if isinstance(vector, Tensor) else list(vector.values())
        for tensor in tensors:
            digest.update(
                tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            )
    return digest.hexdigest()
