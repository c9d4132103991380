"""What a metric returns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssgd_analysis.curvature.operators.sampling import weighted_stderr
from ssgd_analysis.flatness.context import Cost, MetricContext


@dataclass(frozen=True)
class Measurement:
    """The value of a metric, with its standard error and the settings that it was measured with.

    Args:
        value: the metric.
        stderr: its standard error; ``settings["error"]`` says of what. ``None``: unknown.
        settings: everything that fixes the number.
        samples: the values that ``value`` is the mean of, where there are such: one a draw, a
            probe or a batch. With the same seed and examples the i-th samples of two models
            belong together, which makes their difference sharper than either; see
            :func:`difference`.
        weights: of the samples, sum one; ``None``: equal.
        details: what one number does not hold: layers, quantiles, moments, as plain values.
        cost: passes and products beyond those that other metrics had made already.

    Example:
        >>> difference(Measurement(0.75, 0.03), Measurement(0.5, 0.04))
        (0.25, 0.05)
    """

    value: float
    stderr: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    samples: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


def difference(one: Measurement, other: Measurement) -> tuple[float, float | None]:
    """``one`` minus ``other`` with its standard error, by pairs where samples belong together.

    They belong together where both have as many, with the same weights; equal seeds, examples and
    settings are the caller's. Else the errors add in squares, too much where the two share examples
    or draws.

    Example:
        >>> one, other = (Measurement(value, 0.1) for value in (0.5, 0.3))
        >>> [round(number, 3) for number in difference(one, other)]
        [0.2, 0.141]
    """
    value = one.value - other.value
    if paired(one, other):
        _, error = _mean(np.subtract(one.samples or (), other.samples or ()), one.weights)
        return value, error
    if one.stderr is None or other.stderr is None:
        return value, None
    return value, float(np.hypot(one.stderr, other.stderr))


def paired(one: Measurement, other: Measurement) -> bool:
    """Whether the samples of two measurements are as many, with the same weights."""
    first, second = one.samples or (), other.samples or ()
    return 0 < len(first) == len(second) and one.weights == other.weights


def of_draws(values: Sequence[float], settings: dict[str, Any]) -> Measurement:
    """The mean of independent draws, with its standard error (``None`` of a single one)."""
    value, error = _mean(np.asarray(values, dtype=float), None)
    return Measurement(value, error, settings, samples=tuple(map(float, values)))


def of_batches(
    context: MetricContext,
    values: Sequence[float],
    settings: dict[str, Any],
    shares: Sequence[float] | None = None,
) -> Measurement:
    """The mean over all examples of one value for each batch, with its sampling error.

    Adds ``"error": "examples"`` to the settings.

    Args:
        context: the problem.
        values: one a batch.
        settings: the metric's.
        shares: of all examples, one a value; default: those of the problem's batches.
    """
    shares = tuple(context.problem.shares if shares is None else shares)
    _, error = _mean(np.asarray(values, dtype=float), shares)
    return Measurement(
        math.fsum(share * value for share, value in zip(shares, values, strict=True)),
        error,
        {**settings, "error": "examples"},
        samples=tuple(map(float, values)),
        weights=shares,
    )


def of_median(values: Sequence[float], settings: dict[str, Any]) -> Measurement:
    """The median of independent draws, with its standard error; infinite values may be among them.

    The error is half the distance of the two values √n/2 ranks on either side of the median (one
    standard error of a binomial count). The samples are linearised: by the side of the median on
    which a draw lies, centred and scaled so that their mean is the median and their standard error
    its error, also with draws that are equal to it.
    """
    ordered, count = np.sort(np.asarray(values, dtype=float)), len(values)
    median = float(np.median(ordered))
    if count < 4:
        return Measurement(median, None, settings)
    ranks = np.clip((count - 1) / 2 + np.array([-0.5, 0.5]) * count**0.5, 0, count - 1)
    with np.errstate(invalid="ignore"):  # between infinities
        error = float(np.diff(np.interp(ranks, np.arange(count), ordered))[0]) / 2
    if not math.isfinite(error):
        return Measurement(median, None, settings)
    sides = np.sign(np.asarray(values) - median)
    sides -= sides.mean()
    size = math.sqrt(np.square(sides).sum() / (count * (count - 1)))  # their standard error
    samples = median + (error / size if error else 0.0) * sides
    return Measurement(median, error, settings, samples=tuple(map(float, samples)))


def rise(context: MetricContext, after: Sequence[float], settings: dict[str, Any]) -> Measurement:
    """The mean rise of the loss over its clean value, given each batch's loss elsewhere.

    Not to be called inside :meth:`MetricContext.moved`, unless the clean losses are known.
    """
    before = context.clean_losses
    return of_batches(context, [a - b for a, b in zip(after, before, strict=True)], settings)


def _mean(values: np.ndarray, weights: Sequence[float] | None) -> tuple[float, float | None]:
    shares = np.full(len(values), 1 / len(values)) if weights is None else np.asarray(weights)
    error = weighted_stderr(shares, values)
    return float(shares @ values), None if error is None else float(error)
