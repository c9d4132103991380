"""Where a landscape lies in weight space: an origin, one or two directions, and coordinates."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscape.directions import (
    Direction,
    MoveRest,
    between_directions,
    eigen_directions,
    given_directions,
    gradient_directions,
    inner,
    like,
    normalized,
    projected,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.grid import through
from ssgd_analysis.landscape.named_problem import NamedProblem, at_weights
from ssgd_analysis.landscape.settings import LandscapeSettings
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks

MARGIN = 0.15  # around a trajectory, as a share of its width
RISE = 10.0  # times the loss that the sharpest axis shows


@dataclass(frozen=True)
class Mark:
    """The exact place of a checkpoint.

    Args:
        label: how it is called in pictures.
        place: coordinates.
        values: its own loss and accuracy, by name.
    """

    label: str
    place: tuple[float, ...]
    values: dict[str, float]


@dataclass(frozen=True)
class LandscapeSlice:
    """One line or plane.

    Args:
        name: of its grid.
        subject: whose weights are the origin, and what is evaluated.
        repeat: number of the sample of random directions.
        directions: one or two.
        axes: coordinates, one array for each direction.
        marks: checkpoints in it, the origin first.
        move_rest: moves what is no weight along, where the frame goes through checkpoints.
        eigenvalues: of the directions, where they are eigenvectors: value and residual.
        facts: what else is known, for the record.
    """

    name: str
    subject: NamedProblem
    repeat: int
    directions: list[Direction]
    axes: list[np.ndarray]
    marks: list[Mark]
    move_rest: Callable[[Sequence[float]], None] | None = None
    eigenvalues: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def frames(
    subjects: Sequence[NamedProblem],
    settings: LandscapeSettings,
    *,
    ranks: Ranks = SINGLE,
    progress: Progress = SILENT,
) -> list[LandscapeSlice]:
    """All lines or planes of a landscape: subjects × repeats, or one between the subjects.

    Args:
        subjects: one or more; for ``between`` the ends.
        settings: what to draw.
        ranks: the first process finds what takes long or may differ in the last bits.
        progress: of searches for eigenvectors.

    Raises:
        InputError: a wrong number of subjects, different models, no trajectory, wrong vectors, a
            gradient of zero, or too few points.
    """
    for subject in subjects:
        for name, parameter in subject.problem.parameters.items():
            if parameter.is_complex():
                raise InputError(
                    f"parameter '{name}' is complex: keep its two parts as real parameters"
                )
    if settings.directions == "between":
        return [_between(subjects, settings, ranks)]
    found = []
    for subject in subjects:
        found += _around(subject, settings, ranks, progress)
    if settings.span is None and settings.directions == "trajectory":
        axes = _around_paths(found, settings)
    else:
        span = settings.span or max(_sharp_span(frame) for frame in found)
        # with the checkpoint among an odd number of points: linspace may miss it by rounding
        centre = [0.0] if settings.points % 2 else []
        axes = [through(-span, span, settings.points, centre)] * settings.dims
    return [replace(frame, axes=axes) for frame in found]


def _around(
    subject: NamedProblem, settings: LandscapeSettings, ranks: Ranks, progress: Progress
) -> list[LandscapeSlice]:
    """The frames centred on a checkpoint, one a repeat; their axes are still to be given."""
    recalibrate = settings.bn == "recalibrate"
    values = ranks.once(lambda: subject.values(recalibrate=recalibrate))
    label = "end" if settings.directions == "trajectory" else "checkpoint"
    marks = [Mark(label, (0.0,) * settings.dims, values)]
    found = []
    for repeat in range(settings.repeats):
        directions, eigenvalues, facts = ranks.once(
            partial(_search, subject, settings, repeat, progress)
        )
        name = f"{subject.name} #{repeat}" if settings.repeats > 1 else subject.name
        own = like(subject.problem, directions)
        found.append(
            LandscapeSlice(name, subject, repeat, own, [], marks, None, eigenvalues, facts)
        )
    return found


def _search(
    subject: NamedProblem, settings: LandscapeSettings, repeat: int, progress: Progress
) -> tuple[list[Direction], list[dict[str, float]], dict[str, Any]]:
    """Directions (on the CPU), their eigenvalues, and further facts."""
    count, problem = settings.dims, subject.problem
    facts: dict[str, Any] = {}
    eigenvalues: list[dict[str, float]] = []
    if settings.directions == "random":
        raw = random_directions(problem, count, seed=settings.seed, repeat=repeat)
    elif settings.directions == "eigen":
        raw, pairs = eigen_directions(problem, count, seed=settings.seed, progress=progress)
        eigenvalues = [{"value": pair.value, "residual": pair.residual} for pair in pairs]
    elif settings.directions == "gradient":
        raw = gradient_directions(problem, count)
    elif settings.directions == "vectors":
        raw = given_directions(problem, subject.vectors, count)
    else:
        path = list(subject.path.values())
        raw, facts["explained_variance"] = trajectory_directions(problem, path, count)
    directions = normalized(problem, raw, settings.normalize, settings.biases)
    if settings.directions == "trajectory":
        facts["path"] = _path(subject, directions, settings.bn == "recalibrate")
    on_cpu = [[part.cpu() for part in direction] for direction in directions]
    return on_cpu, eigenvalues, facts


def _path(subject: NamedProblem, directions: list[Direction], recalibrate: bool) -> dict[str, Any]:
    """Kept checkpoints by step: their coordinates, distance from the plane, and own losses."""
    seen = projected(subject.problem, list(subject.path.values()), directions)
    losses = []
    for weights in subject.path.values():
        with at_weights(subject.problem, weights):
            losses.append(subject.values(recalibrate=recalibrate)["loss"])
    columns = dict(zip(("alpha", "beta"), seen.places.T.tolist(), strict=False))
    known = {"outside": seen.outside.tolist(), "loss": losses}
    return {"steps": list(subject.path), **columns, **known}


def _sharp_span(frame: LandscapeSlice) -> float:
    """Where ½ λ (a ‖d‖)² is ten times the loss, in two digits; 1 where nothing tells."""
    rise = RISE * abs(frame.marks[0].values["loss"])
    length = inner(frame.directions[0], frame.directions[0])
    curvature = frame.eigenvalues[0]["value"] * length
    if rise <= 0 or curvature <= 0:
        return 1.0
    return float(f"{math.sqrt(2 * rise / curvature):.1e}")


def _around_paths(found: Sequence[LandscapeSlice], settings: LandscapeSettings) -> list[np.ndarray]:
    """Coordinates that hold all paths, with a margin; 0 is among them."""
    axes = []
    for name in ("alpha", "beta")[: settings.dims]:
        values = [0.0, *(a for frame in found for a in frame.facts["path"][name])]
        margin = MARGIN * (max(values) - min(values))
        axes.append(through(min(values) - margin, max(values) + margin, settings.points, [0.0]))
    return axes


def _between(
    subjects: Sequence[NamedProblem], settings: LandscapeSettings, ranks: Ranks
) -> LandscapeSlice:
    count = settings.dims + 1
    if len(subjects) != count:
        wanted = "two checkpoints" if count == 2 else "three checkpoints for a plane (--dims 2)"
        raise InputError(f"--directions between needs {wanted}, not {len(subjects)}")
    names, problems = [s.name for s in subjects], [s.problem for s in subjects]
    directions, places = between_directions(names, problems)
    span = settings.span
    assert span is not None  # LandscapeSettings gives it
    axes = []
    for column in zip(*places, strict=True):
        exact = list(column)
        axes.append(through(min(exact) - span, max(exact) + span, settings.points, exact))
    recalibrate = settings.bn == "recalibrate"
    values = ranks.once(lambda: [s.values(recalibrate=recalibrate) for s in subjects])
    marks = [Mark(s.name, at, own) for s, at, own in zip(subjects, places, values, strict=True)]
    return LandscapeSlice(
        " – ".join(names),
        subjects[0],
        0,
        directions,
        axes,
        marks,
        MoveRest(problems, places),
        facts={"distance": inner(directions[0], directions[0]) ** 0.5},
    )
