"""A landscape from models in memory: slices through weight space, their points, and facts."""

import dataclasses
import functools
import math
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import make_folder
from ssgd_analysis.landscapes.directions import inner_product
from ssgd_analysis.landscapes.evaluation import Plans
from ssgd_analysis.landscapes.grid import Grid
from ssgd_analysis.landscapes.named_problem import NamedProblem, landscape_fingerprint
from ssgd_analysis.landscapes.partial import PartialResults
from ssgd_analysis.landscapes.plane_curvature import NO_CURVATURE, PlaneCurvature
from ssgd_analysis.landscapes.record import PARTIAL, LandscapeRecord
from ssgd_analysis.landscapes.sampling import GridSampler
from ssgd_analysis.landscapes.slice import LandscapeSlice, slices_of
from ssgd_analysis.landscapes.valley import valley_sides
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks
from ssgd_analysis.settings.landscape import LandscapeSettings
from ssgd_analysis.weights.batchnorm import has_statistics

Problems = Problem | NamedProblem | Sequence[Problem | NamedProblem]


def landscape(
    problems: Problems,
    settings: LandscapeSettings | None = None,
    *,
    folder: Path | str | None = None,
    resume: bool = False,
    tune: bool = False,
    plans: Plans | None = None,
    origin: Mapping[str, Any] | None = None,
    ranks: Ranks = SINGLE,
    progress: Progress = SILENT,
) -> LandscapeRecord:
    """Evaluate the loss on lines or planes through weight space.

    Models, their buffers, gradients and modes come back as they were, bit for bit.

    Args:
        problems: one or more checkpoints, each at its weights. A :class:`NamedProblem` gives it a
            name, a test split, the trajectory of its training, and other things that some
            settings need. For ``between`` two are the ends of a line, three lie in a plane.
        settings: what to draw; default: a line in a random direction.
        folder: computed points are stored there, so that a killed call can be resumed.
            :meth:`LandscapeRecord.save` into the same folder removes them.
        resume: use what the folder holds of the same settings, weights, data and code: points,
            or a finished landscape, which is then returned.
        tune: choose how points are evaluated by a short measurement; else sizes decide, and the
            same call gives the same bits.
        plans: how points are evaluated, as an earlier record's ``plans`` says.
        origin: where the problems come from, for the document: ``split``, ``samples``,
            ``batch_size``, ``dtype``, ``model``, ``data``, ``loss``, ``command``.
        ranks: the processes that share the points.
        progress: receives every point.

    Returns:
        Losses in nats per example for cross-entropy, accuracies, and facts about each grid.

    Raises:
        InputError: see :func:`ssgd_analysis.landscapes.slice.slices_of`; stored points that are
            damaged or of another landscape; more points than disk or memory hold.
        WorkError: the disk is full.

    Example:
        >>> import torch; from torch import nn
        >>> model, x, y = nn.Linear(4, 2), torch.randn(32, 4), torch.arange(32) % 2
        >>> problem = Problem(model, nn.functional.cross_entropy, [(x, y)])
        >>> found = landscape(problem, LandscapeSettings(dims=2, points=5))
        >>> found.arrays["loss"].shape
        (5, 5)
        >>> bool(found.arrays["loss"][2, 2] == problem.mean_loss())
        True
    """
    settings = settings or LandscapeSettings()
    named = _named(problems)
    folder = None if folder is None else Path(folder)
    document = _document(named, settings, origin or {})
    if resume and folder is not None:
        key = document["fingerprint"]
        finished = ranks.once(lambda: LandscapeRecord.finished(folder, key))
        if finished is not None:
            return finished
    _check_size(settings, named, folder)
    partial = None
    if folder is not None:
        ranks.once(lambda: make_folder(folder))
        partial = PartialResults(folder / PARTIAL, document["fingerprint"], ranks.rank)
        if not resume:
            ranks.once(partial.clear)
    curvature = PlaneCurvature(settings.seed, progress)
    given, used, grids, facts = dict(plans or {}), [], [], []
    for number, slice_ in enumerate(slices_of(named, settings, ranks=ranks, progress=progress)):
        grid = Grid.empty(slice_.axes, test=slice_.named.test is not None)
        stored = partial.load(number, grid) if partial is not None and resume else None
        sampler = GridSampler(
            slice_, settings, grid, number,
            partial=partial, plans=stored or given, tune=tune, ranks=ranks, progress=progress,
        )  # fmt: skip
        curved = _curvature(curvature, slice_, settings, ranks)
        measured = sampler.adaptive() if settings.adaptive else sampler.full()
        given = sampler.plans if tune else given
        used.append(sampler.plans)
        grids.append(grid)
        facts.append(_facts(slice_, grid) | curved | measured)
    arrays = _arrays(settings, grids, _count(named, settings))
    document |= {
        "units": settings.units,
        "grids": facts,
        "plan": used[0],
        "axes": {name: list(array.shape) for name, array in arrays.items()},
        "versions": {name: version(name) for name in ("ssgd-analysis", "torch", "numpy")},
        "notes": list(dict.fromkeys(note for each in named for note in each.problem.notes)),
        "out": None,
        "pictures": [],
    }
    return LandscapeRecord(document, arrays)


def _named(problems: Problems) -> list[NamedProblem]:
    """Every problem with a name; those without one are numbered."""
    several = [problems] if isinstance(problems, Problem | NamedProblem) else list(problems)
    if not several:
        raise InputError("a landscape needs at least one problem")
    return [
        problem if isinstance(problem, NamedProblem) else NamedProblem(f"model {number}", problem)
        for number, problem in enumerate(several, start=1)
    ]


def _document(
    named: Sequence[NamedProblem], settings: LandscapeSettings, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """What the document says before anything is computed."""
    first, command = named[0], origin.get("command")
    loss: Any = first.problem.loss
    return {
        "settings": dataclasses.asdict(settings),
        "checkpoints": [each.name for each in named],
        "split": "train" if first.test is None else "both",
        "samples": None,
        "batch_size": None,
        "dtype": str(first.problem.dtype).removeprefix("torch."),
        "model": type(first.problem.model).__name__,
        "data": None,
        "loss": getattr(loss, "__name__", type(loss).__name__),
        **{name: value for name, value in origin.items() if name != "command"},
        "n_samples": first.problem.n_samples,
        "n_test_samples": None if first.test is None else first.test.n_samples,
        "batchnorm": has_statistics(first.problem.model),
        "command": command,
        "fingerprint": landscape_fingerprint(named, settings),
    }


def _count(named: Sequence[NamedProblem], settings: LandscapeSettings) -> int:
    """How many checkpoints have grids of their own."""
    return 1 if settings.directions == "between" else len(named)


def _check_size(
    settings: LandscapeSettings, named: Sequence[NamedProblem], folder: Path | None
) -> None:
    """Refuse more points than can be stored, before any is computed."""
    grids = _count(named, settings) * settings.repeats
    each = 8 * (4 if named[0].test is not None else 2) + 1  # values and whether it is done
    needed = grids * math.prod(settings.shape) * each
    room = {"memory": psutil.virtual_memory().available}
    if folder is not None:
        there = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
        room["disk"] = shutil.disk_usage(there).free
    for kind, free in room.items():
        if 3 * needed > free:  # partial results, the answer, and its copy while it is written
            raise InputError(
                f"--points {settings.points} makes {grids * math.prod(settings.shape):.3g} points,"
                f" which need {3 * needed / 2**30:.3g} GiB: the {kind} has {free / 2**30:.3g} GiB"
                " left, so use fewer points"
            )


def _curvature(
    curvature: PlaneCurvature, slice_: LandscapeSlice, settings: LandscapeSettings, ranks: Ranks
) -> dict[str, Any]:
    """Slopes, curvatures and the share of λ_max, where they are asked for and defined."""
    if not settings.curvature:
        return dict(NO_CURVATURE)
    if settings.bn == "recalibrate" and has_statistics(slice_.named.problem.model):
        return NO_CURVATURE | {
            "share_note": "curvatures need frozen BatchNorm statistics (--bn frozen)"
        }
    return ranks.once(functools.partial(curvature.facts, slice_))


def _facts(slice_: LandscapeSlice, grid: Grid) -> dict[str, Any]:
    """What the document says of a grid, apart from curvatures and the measurement."""
    directions = slice_.directions
    lengths = [inner_product(d, d) ** 0.5 for d in directions]
    facts: dict[str, Any] = {
        "checkpoint": slice_.named.name, "repeat": slice_.repeat, "norms": lengths
    }  # fmt: skip
    if len(directions) == 2:
        facts["cosine"] = inner_product(*directions) / math.prod(lengths)
    names = ("alpha", "beta")
    facts["marks"] = [
        {"label": mark.label, **dict(zip(names, mark.coordinates, strict=False)), **mark.values}
        for mark in slice_.marks
    ]
    if slice_.eigenvalues:
        facts["eigenvalues"] = slice_.eigenvalues
    if slice_.move_rest is not None and len(directions) == 1:
        facts["asymmetry"] = valley_sides(grid.axes[0], grid.values["loss"])
    facts["holes"] = int((~np.isfinite(grid.values["loss"])).sum())
    return facts | slice_.facts


def _arrays(
    settings: LandscapeSettings, grids: Sequence[Grid], checkpoints: int
) -> dict[str, np.ndarray]:
    lead = [n for n in (checkpoints, settings.repeats) if n > 1]
    arrays = dict(zip(("alpha", "beta"), grids[0].axes, strict=False))
    for name in grids[0].values:
        stacked = np.stack([grid.values[name] for grid in grids])
        arrays[name] = stacked.reshape(*lead, *settings.shape)
    if settings.adaptive:
        arrays["measured"] = np.stack([g.done for g in grids]).reshape(*lead, *settings.shape)
    return arrays
