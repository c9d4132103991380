"""Flatness metrics: functions of (model, loss, batches) that return a value with its error."""

from collections.abc import Sequence
from typing import Any

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.flatness.context import Cost, MetricContext
from ssgd_analysis.flatness.measurement import Measurement, difference
from ssgd_analysis.flatness.metric import Metric
from ssgd_analysis.flatness.metrics.adaptive_worst import adaptive_worst
from ssgd_analysis.flatness.metrics.asymmetry import asymmetry
from ssgd_analysis.flatness.metrics.density_moments import density_moments
from ssgd_analysis.flatness.metrics.expected import expected
from ssgd_analysis.flatness.metrics.fisher_rao import fisher_rao
from ssgd_analysis.flatness.metrics.frobenius import frobenius
from ssgd_analysis.flatness.metrics.gradient_covariance_trace import gradient_covariance_trace
from ssgd_analysis.flatness.metrics.gradient_noise_scale import gradient_noise_scale
from ssgd_analysis.flatness.metrics.gradient_norm import gradient_norm
from ssgd_analysis.flatness.metrics.input_jacobian import input_jacobian
from ssgd_analysis.flatness.metrics.keskar import keskar
from ssgd_analysis.flatness.metrics.lambda_max import lambda_max
from ssgd_analysis.flatness.metrics.layer_lambda_max import layer_lambda_max
from ssgd_analysis.flatness.metrics.layer_trace import layer_trace
from ssgd_analysis.flatness.metrics.local_entropy import local_entropy
from ssgd_analysis.flatness.metrics.lpf import lpf
from ssgd_analysis.flatness.metrics.m_sharpness import m_sharpness
from ssgd_analysis.flatness.metrics.margin import margin
from ssgd_analysis.flatness.metrics.negative_mass import negative_mass
from ssgd_analysis.flatness.metrics.noise_robustness import noise_robustness
from ssgd_analysis.flatness.metrics.pac_bayes_sigma import pac_bayes_sigma
from ssgd_analysis.flatness.metrics.quantization_drop import quantization_drop
from ssgd_analysis.flatness.metrics.relative_flatness import relative_flatness
from ssgd_analysis.flatness.metrics.sam import sam
from ssgd_analysis.flatness.metrics.spectral_norm_ratio import spectral_norm_ratio
from ssgd_analysis.flatness.metrics.symmetric_gap import symmetric_gap
from ssgd_analysis.flatness.metrics.trace import hessian_trace
from ssgd_analysis.flatness.metrics.trace_per_parameter import trace_per_parameter
from ssgd_analysis.flatness.metrics.trace_weighted import trace_weighted
from ssgd_analysis.flatness.metrics.volume import volume
from ssgd_analysis.flatness.metrics.w_h_w import w_h_w
from ssgd_analysis.flatness.metrics.worst_case import worst_case
from ssgd_analysis.flatness.table import METRICS, MetricEntry


def resolve(text: str) -> tuple[str, dict[str, Any]]:
    """A metric and settings out of ``NAME`` or ``NAME:setting=value,…``.

    Returns:
        The name in :data:`METRICS` and the settings that were given.

    Raises:
        InputError: an unknown metric or setting, or a value of another type.
    """
    name, _, settings = text.partition(":")
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    try:
        found = METRICS[name].measure.settings(settings)
    except InputError as error:
        raise InputError(f"metric {name}: {error}") from error
    if found.get("scale") == "element":  # another word for it
        found["scale"] = "weight"
    return name, found


def all_metrics(texts: Sequence[str]) -> tuple[str, ...]:
    """Metrics as they were asked for, each once; ``all`` stands for every name of the table.

    Example:
        >>> found = all_metrics(["expected:sigma=0.2", "all"])
        >>> (found[0], "expected" in found, "all" in found)
        ('expected:sigma=0.2', True, False)
    """
    whole = [name for text in texts for name in (METRICS if text == "all" else [text])]
    return tuple(dict.fromkeys(whole))


def curve(
    context: MetricContext, name: str, radii: Sequence[float] = (), **settings: Any
) -> list[tuple[float, Measurement]]:
    """A metric over its radius, with the same random numbers at all radii.

    Args:
        context: the problem.
        name: of a metric with a radius.
        radii: default: the metric's own grid.
        settings: the metric's others.

    Returns:
        Radius and measurement, in the order of the radii.

    Raises:
        InputError: a metric without a radius.
    """
    entry = METRICS[name]
    if not entry.radius:
        raise InputError(f"metric {name} has no radius")
    return [
        (radius, entry.measure.on(context, **{**settings, entry.radius: radius}))
        for radius in radii or entry.grid(settings)
    ]


__all__ = [
    "METRICS",
    "Cost",
    "Measurement",
    "Metric",
    "MetricContext",
    "MetricEntry",
    "adaptive_worst",
    "all_metrics",
    "asymmetry",
    "curve",
    "density_moments",
    "difference",
    "expected",
    "fisher_rao",
    "frobenius",
    "gradient_covariance_trace",
    "gradient_noise_scale",
    "gradient_norm",
    "hessian_trace",
    "input_jacobian",
    "keskar",
    "lambda_max",
    "layer_lambda_max",
    "layer_trace",
    "local_entropy",
    "lpf",
    "m_sharpness",
    "margin",
    "negative_mass",
    "noise_robustness",
    "pac_bayes_sigma",
    "quantization_drop",
    "relative_flatness",
    "resolve",
    "sam",
    "spectral_norm_ratio",
    "symmetric_gap",
    "trace_per_parameter",
    "trace_weighted",
    "volume",
    "w_h_w",
    "worst_case",
]
