"""A line or plane through weight space: an origin, one or two directions, and coordinates."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions import (
    Direction,
    MoveRest,
    between_directions,
    eigen_directions,
    given_directions,
    gradient_directions,
    inner_product,
    like,
    normalized_directions,
    projected,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscapes.grid import through
from ssgd_analysis.landscapes.named_problem import NamedProblem, at_weights
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks
from ssgd_analysis.settings.landscape import LandscapeSettings

MARGIN = 0.15  # around a trajectory, as a share of its width
RISE = 10.0  # times the loss that the sharpest axis shows


@dataclass(frozen=True)
class CheckpointMark:
    """The exact position of a checkpoint in a slice.

    Args:
        label: its name in pictures.
        coordinates: one for each direction.
        values: its own loss and accuracy, by name.
    """

    label: str
    coordinates: tuple[float, ...]
    values: dict[str, float]


@dataclass(frozen=True)
class LandscapeSlice:
    """One line or plane.

    Args:
        named: the problem whose weights are the origin and whose loss is evaluated.
        repeat: number of the sample of random directions.
        directions: one or two.
        axes: coordinates, one array for each direction.
        marks: checkpoints in it, the origin first.
        move_rest: moves buffers and other parameters along, where the slice goes through
            several checkpoints.
        eigenvalues: of the directions, where they are eigenvectors: value and residual.
        facts: further entries for the record.
    """

    named: NamedProblem
    repeat: int
    directions: list[Direction]
    axes: list[np.ndarray]
    marks: list[CheckpointMark]
    move_rest: Callable[[Sequence[float]], None] | None = None
    eigenvalues: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def slices_of(
    named: Sequence[NamedProblem],
    settings: LandscapeSettings,
    *,
    ranks: Ranks = SINGLE,
    progress: Progress = SILENT,
) -> list[LandscapeSlice]:
    """All lines or planes of a landscape: checkpoints × repeats, or one between the checkpoints.

    Args:
        named: one or more checkpoints; for ``between`` the ends.
        settings: what to draw.
        ranks: the first process finds what takes long or may differ in the last bits.
        progress: of searches for eigenvectors.

    Raises:
        InputError: a wrong number of checkpoints, different models, no trajectory, wrong vectors, a
            gradient of zero, or too few points.
    """
    for each in named:
        for name, parameter in each.problem.parameters.items():
            if parameter.is_complex():
                raise InputError(
                    f"parameter '{name}' is complex: keep its two parts as real parameters"
                )
    if settings.directions == "between":
        return [_between(named, settings, ranks)]
    found = []
    for each in named:
        found += _around(each, settings, ranks, progress)
    if settings.span is None and settings.directions == "trajectory":
        axes = _around_paths(found, settings)
    else:
        span = settings.span or max(_sharp_span(slice_) for slice_ in found)
        # with the checkpoint among an odd number of points: linspace may miss it by rounding
        centre = [0.0] if settings.points % 2 else []
        axes = [through(-span, span, settings.points, centre)] * settings.dims
    return [replace(slice_, axes=axes) for slice_ in found]


def _around(
    named: NamedProblem, settings: LandscapeSettings, ranks: Ranks, progress: Progress
) -> list[LandscapeSlice]:
    """The slices centred on a checkpoint, one for each repeat; their axes follow later."""
    recalibrate = settings.bn == "recalibrate"
    values = ranks.once(lambda: named.values(recalibrate=recalibrate))
    label = "end" if settings.directions == "trajectory" else "checkpoint"
    marks = [CheckpointMark(label, (0.0,) * settings.dims, values)]
    found = []
    for repeat in range(settings.repeats):
        directions, eigenvalues, facts = ranks.once(
            partial(_search, named, settings, repeat, progress)
        )
        own = like(named.problem, directions)
        found.append(LandscapeSlice(named, repeat, own, [], marks, None, eigenvalues, facts))
    return found


def _search(
    named: NamedProblem, settings: LandscapeSettings, repeat: int, progress: Progress
) -> tuple[list[Direction], list[dict[str, float]], dict[str, Any]]:
    """Directions (on the CPU), their eigenvalues, and further facts."""
    count, problem = settings.dims, named.problem
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
        raw = given_directions(problem, named.vectors, count)
    else:
        path = list(named.path.values())
        raw, facts["explained_variance"] = trajectory_directions(problem, path, count)
    directions = normalized_directions(problem, raw, settings.normalize, settings.biases)
    if settings.directions == "trajectory":
        facts["path"] = _path(named, directions, settings.bn == "recalibrate")
    on_cpu = [[part.cpu() for part in direction] for direction in directions]
    return on_cpu, eigenvalues, facts


def _path(named: NamedProblem, directions: list[Direction], recalibrate: bool) -> dict[str, Any]:
    """The trajectory's checkpoints: steps, coordinates, distances from the plane, own losses."""
    projection = projected(named.problem, list(named.path.values()), directions)
    losses = []
    for weights in named.path.values():
        with at_weights(named.problem, weights):
            losses.append(named.values(recalibrate=recalibrate)["loss"])
    columns = dict(zip(("alpha", "beta"), projection.coordinates.T.tolist(), strict=False))
    more = {"outside": projection.outside.tolist(), "loss": losses}
    return {"steps": list(named.path), **columns, **more}


def _sharp_span(slice_: LandscapeSlice) -> float:
    """Where ½ λ (a ‖d‖)² is ten times the loss, in two digits; 1 if loss or λ is not positive."""
    rise = RISE * abs(slice_.marks[0].values["loss"])
    length = inner_product(slice_.directions[0], slice_.directions[0])
    curvature = slice_.eigenvalues[0]["value"] * length
    if rise <= 0 or curvature <= 0:
        return 1.0
    return float(f"{math.sqrt(2 * rise / curvature):.1e}")


def _around_paths(found: Sequence[LandscapeSlice], settings: LandscapeSettings) -> list[np.ndarray]:
    """Coordinates that hold all paths, with a margin; 0 is among them."""
    axes = []
    for name in ("alpha", "beta")[: settings.dims]:
        values = [0.0, *(a for slice_ in found for a in slice_.facts["path"][name])]
        margin = MARGIN * (max(values) - min(values))
        axes.append(through(min(values) - margin, max(values) + margin, settings.points, [0.0]))
    return axes


def _between(
    named: Sequence[NamedProblem], settings: LandscapeSettings, ranks: Ranks
) -> LandscapeSlice:
    count = settings.dims + 1
    if len(named) != count:
        wanted = "two checkpoints" if count == 2 else "three checkpoints for a plane (--dims 2)"
        raise InputError(f"--directions between needs {wanted}, not {len(named)}")
    names, problems = [n.name for n in named], [n.problem for n in named]
    directions, positions = between_directions(names, problems)
    span = settings.span
    assert span is not None  # LandscapeSettings gives it
    axes = []
    for column in zip(*positions, strict=True):
        exact = list(column)
        axes.append(through(min(exact) - span, max(exact) + span, settings.points, exact))
    recalibrate = settings.bn == "recalibrate"
    values = ranks.once(lambda: [n.values(recalibrate=recalibrate) for n in named])
    marks = [
        CheckpointMark(n.name, at, own) for n, at, own in zip(named, positions, values, strict=True)
    ]
    return LandscapeSlice(
        named[0],
        0,
        directions,
        axes,
        marks,
        MoveRest(problems, positions),
        facts={"distance": inner_product(directions[0], directions[0]) ** 0.5},
    )
