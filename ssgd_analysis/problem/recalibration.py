"""BatchNorm's statistics made anew at every point of a landscape or path."""

from collections.abc import Callable, Sequence

from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.weights.batchnorm import recalibrate_batchnorm, recalibrated_layers


def recalibration(problem: Problem, batches: Sequence[Batch]) -> Callable[[], None]:
    """What makes the statistics of the model's present weights, each time that it is called.

    Args:
        problem: its model, in its own modes: these say which layers are frozen. Where its loss is
            one of (model, batch), or its batches are not held, its loss passes them through it.
        batches: of the kind that the problem's are; none: the problem's own.
    """
    model, layers = problem.model, recalibrated_layers(problem.model)
    forward = problem.batch_loss if problem.takes_model or problem.streams else None
    held = batches or problem.batches
    return lambda: recalibrate_batchnorm(model, held, forward=forward, layers=layers)
