"""Loss and accuracy on a grid of displacements."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ssgd_analysis.landscape.batchnorm import recalibrate_batchnorm
from ssgd_analysis.landscape.directions import Direction
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import borrowed_buffers, borrowed_weights


@dataclass
class Grid:
    """Loss and accuracy over one or two coordinates; NaN where not yet computed.

    Args:
        axes: coordinates, one array for each direction.
        loss: shape (points,) or (points, points), first axis alpha.
        accuracy: same shape; NaN where the targets are no class labels.
        done: same shape, which points are computed.
    """

    axes: list[np.ndarray]
    loss: np.ndarray
    accuracy: np.ndarray
    done: np.ndarray

    @classmethod
    def empty(cls, axes: list[np.ndarray]) -> "Grid":
        """A grid with nothing computed."""
        shape = tuple(len(axis) for axis in axes)
        return cls(axes, np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool))


def evaluate_grid(
    problem: Problem,
    directions: list[Direction],
    grid: Grid,
    *,
    recalibrate: list[Batch] | None = None,
    rest: Callable[[float], None] | None = None,
    save: Callable[[], None] = lambda: None,
    progress: Progress = SILENT,
) -> None:
    """Fill in the points of a grid that are not done: L(w + α d₁ + β d₂).

    Every point is set from the clean weights in one move, so no error builds up; the model
    comes back bit for bit.

    Args:
        problem: at the weights that are the origin.
        directions: one for each axis of the grid.
        grid: filled in place.
        recalibrate: if given, BatchNorm's running statistics are estimated anew from these
            batches at every point; else they stay as they are.
        rest: called with alpha before each point, to move buffers and frozen parameters along
            (a line between two checkpoints).
        save: called now and then, to keep what is done.
        progress: told of every point.
    """
    parameters = list(problem.parameters.values())
    frozen = [p for p in problem.model.parameters() if not p.requires_grad]
    progress.start("landscape", grid.loss.size)
    progress.advance(int(grid.done.sum()))
    with (
        borrowed_weights(parameters) as clean,
        borrowed_weights(frozen),
        borrowed_buffers(problem.model),
    ):
        for index in itertools.product(*[range(len(axis)) for axis in grid.axes]):
            if grid.done[index]:
                continue
            place = [axis[i] for axis, i in zip(grid.axes, index, strict=True)]
            with torch.no_grad():
                for number, (parameter, weight) in enumerate(zip(parameters, clean, strict=True)):
                    parameter.copy_(weight)
                    for amount, direction in zip(place, directions, strict=True):
                        parameter.add_(direction[number], alpha=float(amount))
            if rest is not None:
                rest(float(place[0]))
            if recalibrate is not None:
                recalibrate_batchnorm(problem.model, recalibrate)
            loss, accuracy = problem.evaluate()
            grid.loss[index] = loss
            grid.accuracy[index] = np.nan if accuracy is None else accuracy
            grid.done[index] = True
            save()
            progress.advance(1, f"loss {loss:.3g}")
