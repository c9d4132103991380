"""Flatness metrics: functions of (model, loss, batches) that return a value with its error."""

from collections.abc import Callable
from dataclasses import dataclass

from ssgd_analysis.flatness.adaptive_worst import adaptive_worst
from ssgd_analysis.flatness.expected import expected
from ssgd_analysis.flatness.fisher_rao import fisher_rao
from ssgd_analysis.flatness.hessian import hessian_trace, lambda_max
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.sam import sam


@dataclass(frozen=True)
class MetricEntry:
    """One line of the table.

    Args:
        measure: ``(model, loss, batches, *, seed, …) -> Measurement``.
        summary: one line.
        invariant_to: reparametrisations of the same function that leave the value alone:
            ``layer`` (a layer by a, the next by 1/a, in ReLU nets), ``neuron`` (the same for
            one neuron), ``batchnorm`` (the scale of weights that BatchNorm follows).
    """

    measure: Callable[..., Measurement]
    summary: str
    invariant_to: tuple[str, ...] = ()


METRICS = {
    "lambda_max": MetricEntry(lambda_max, "largest eigenvalue of the Hessian"),
    "trace": MetricEntry(hessian_trace, "trace of the Hessian"),
    "expected": MetricEntry(
        expected,
        "mean rise of the loss under random relative weight noise, antithetic pairs",
        ("layer", "neuron", "batchnorm"),
    ),
    "sam": MetricEntry(sam, "rise of the loss after one ascent step of length rho"),
    "adaptive_worst": MetricEntry(
        adaptive_worst,
        "largest rise of the loss found within an elementwise relative ball",
        ("layer", "neuron", "batchnorm"),
    ),
    "fisher_rao": MetricEntry(
        fisher_rao,
        "Fisher-Rao norm: weights times Fisher matrix times weights",
        ("layer", "neuron"),
    ),
}

__all__ = [
    "METRICS",
    "Measurement",
    "MetricEntry",
    "adaptive_worst",
    "expected",
    "fisher_rao",
    "hessian_trace",
    "lambda_max",
    "sam",
]
