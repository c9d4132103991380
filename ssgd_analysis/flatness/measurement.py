"""What a metric returns."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssgd_analysis.curvature.sampling import weighted_stderr
from ssgd_analysis.problem import Problem


@dataclass(frozen=True)
class Measurement:
    """A value with its doubt and how it was made.

    Args:
        value: the metric.
        stderr: its standard error; ``settings["error"]`` says of what. ``None``: unknown.
        settings: everything that fixes the number.
    """

    value: float
    stderr: float | None
    settings: dict[str, Any] = field(default_factory=dict)


def rise(problem: Problem, before: list[float], after: list[float]) -> tuple[float, float | None]:
    """Mean rise of the loss over all examples, and its sampling error from the batches.

    Args:
        problem: whose batches these are.
        before: mean loss of each batch.
        after: the same at other weights.
    """
    return mean_with_error(problem, [b - a for a, b in zip(before, after, strict=True)])


def mean_with_error(problem: Problem, values: list[float]) -> tuple[float, float | None]:
    """Mean over all examples of one value for each batch, and its sampling error."""
    error = weighted_stderr(np.array(problem.shares), np.array(values))
    return problem.mean(values), None if error is None else float(error)
