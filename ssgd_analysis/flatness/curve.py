"""A metric over its radius."""

from collections.abc import Sequence
from typing import Any

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.table import METRICS
from ssgd_analysis.problem import Problem


def curve(
    problem: Problem, name: str, radii: Sequence[float] = (), *, seed: int = 0, **settings: Any
) -> list[tuple[float, Measurement]]:
    """A metric over its radius, with the same random numbers at all radii.

    Args:
        problem: what is measured.
        name: of a metric with a radius.
        radii: default: the metric's own grid.
        seed: of all that is random.
        settings: the metric's others.

    Returns:
        Radius and measurement, in the order of the radii.

    Raises:
        InputError: a metric without a radius.

    Example:
        >>> import torch
        >>> x, y = torch.eye(2), torch.zeros(2, 1)
        >>> problem = Problem(torch.nn.Linear(2, 1), torch.nn.MSELoss(), [(x, y)])
        >>> [radius for radius, found in curve(problem, "sam", [0.01, 0.1])]
        [0.01, 0.1]
    """
    return curve_on(MetricContext(problem, seed), name, radii, **settings)


def curve_on(
    context: MetricContext, name: str, radii: Sequence[float] = (), **settings: Any
) -> list[tuple[float, Measurement]]:
    """The same by a context, which metrics share."""
    metric = METRICS[name]
    if not metric.radius:
        raise InputError(f"metric {name} has no radius")
    return [
        (radius, metric.on(context, **{**settings, metric.radius: radius}))
        for radius in radii or metric.grid(settings)
    ]
