"""The table of metrics, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class MetricEntry:
    """One line of the table.

    Args:
        measure: ``(model, loss, batches, *, seed, …) -> Measurement``.
        summary: one line.
        invariant_to: changes that leave the value at default settings alone; names of
            :data:`ssgd_analysis.symmetries.transformations.TRANSFORMATIONS`.
        radius: the setting that is a radius or a noise scale, if there is one: a value is a
            point of the curve over it.
        radii: the default grid of that curve.
        flatter: which values mean a flatter minimum: ``"lower"``, ``"higher"``; ``None``: neither.
        linf_radii: the grid for ``norm="linf"``, where that is a setting.
        note: what the tables say beside the name.
    """

    measure: Metric
    summary: str
    invariant_to: tuple[str, ...] = ()
    radius: str = ""
    radii: tuple[float, ...] = ()
    flatter: str | None = "lower"
    linf_radii: tuple[float, ...] = ()
    note: str = ""

    def invariances(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """``invariant_to`` at other settings than the defaults."""
        lost: set[str] = set()
        scale = settings.get("scale")
        if scale in ("filter", "layer"):
            lost.add("neuron")
        elif scale == "none":
            lost |= {"layer", "neuron", "batchnorm", "folding"}
        if settings.get("of") == "loss" or settings.get("normalise") == "none":
            lost.add("logit")
        return tuple(name for name in self.invariant_to if name not in lost)

    def invariant(self, settings: Mapping[str, Any]) -> bool:
        """Whether no rescaling of the weights moves it: only such a metric can decide."""
        return {"layer", "neuron", "batchnorm"} <= set(self.invariances(settings))

    def grid(self, settings: Mapping[str, Any]) -> tuple[float, ...]:
        """The default radii of a curve at these settings."""
        if settings.get("norm") == "linf":
            return self.linf_radii
        return ABSOLUTE if settings.get("scale") == "none" else self.radii


ABSOLUTE = (0.003, 0.01, 0.02, 0.05)  # standard deviations of noise in units of the weights
BOUND, THESE = "lower bound", "of these examples"
RELATIVE = (0.05, 0.1, 0.2, 0.4)  # radii relative to the weights, as in arXiv 2302.07011

METRICS = {
    "lambda_max": MetricEntry(lambda_max, "largest eigenvalue of the Hessian", ("permutation",)),
    "trace": MetricEntry(hessian_trace, "trace of the Hessian", ("permutation",)),
    "trace_per_parameter": MetricEntry(
        trace_per_parameter, "mean eigenvalue of the Hessian", ("permutation",)
    ),
    "spectral_norm_ratio": MetricEntry(
        spectral_norm_ratio,
        "largest eigenvalue of the Hessian over the fifth",
        ("permutation",),
        flatter=None,
    ),
    "frobenius": MetricEntry(frobenius, "Frobenius norm of the Hessian", ("permutation",)),
    "density_moments": MetricEntry(
        density_moments, "mean squared eigenvalue of the Hessian; moments 1 to 4", ("permutation",)
    ),
    "negative_mass": MetricEntry(
        negative_mass,
        "share of clearly negative eigenvalues of the Hessian",
        ("permutation",),
        flatter=None,
    ),
    "gradient_norm": MetricEntry(
        gradient_norm,
        "norm of the gradient of the mean loss over these examples",
        ("permutation",),
        note=THESE,
    ),
    "gradient_covariance_trace": MetricEntry(
        gradient_covariance_trace,
        "spread of the examples' gradients: trace of their covariance",
        ("permutation", "decay"),
    ),
    "gradient_noise_scale": MetricEntry(
        gradient_noise_scale,
        "batch size whose gradient noise is as large as the gradient",
        ("permutation",),
        flatter=None,
    ),
    "expected": MetricEntry(
        expected,
        "mean rise of the loss under random relative weight noise, antithetic pairs",
        ("layer", "neuron", "batchnorm", "permutation"),
        "sigma",
        RELATIVE,
    ),
    "sam": MetricEntry(
        sam,
        "rise of the loss after one ascent step of length rho, below the worst case there",
        ("permutation",),
        radius="rho",
        radii=(0.01, 0.02, 0.05, 0.1, 0.2),
        note=f"one step, {THESE}",
    ),
    "worst_case": MetricEntry(
        worst_case,
        "largest rise of the loss found within a ball of radius rho, a lower bound",
        ("permutation",),
        radius="rho",
        radii=(0.01, 0.02, 0.05, 0.1, 0.2),
        linf_radii=(0.0005, 0.001, 0.002, 0.004),
        note=BOUND,
    ),
    "m_sharpness": MetricEntry(
        m_sharpness,
        "mean over groups of m examples of each group's own worst case, a lower bound",
        ("permutation",),
        radius="rho",
        radii=(0.01, 0.02, 0.05, 0.1, 0.2),
        linf_radii=(0.0005, 0.001, 0.002, 0.004),
        note=BOUND,
    ),
    "keskar": MetricEntry(
        keskar,
        "largest loss found in a box of size epsilon, per cent of 1 + loss, a lower bound",
        ("permutation",),
        radius="epsilon",
        radii=(1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
        note=BOUND,
    ),
    "adaptive_worst": MetricEntry(
        adaptive_worst,
        "largest rise of the loss found within an elementwise relative ball, a lower bound",
        ("layer", "neuron", "batchnorm", "permutation"),
        "rho",
        (0.1, 0.2, 0.5, 1.0, 2.0),
        linf_radii=(0.001, 0.002, 0.004, 0.008),
        note=BOUND,
    ),
    "fisher_rao": MetricEntry(
        fisher_rao,
        "Fisher-Rao norm: weights times Fisher matrix times weights",
        ("layer", "neuron", "batchnorm", "permutation"),
    ),
    "w_h_w": MetricEntry(
        w_h_w, "curvature along the weights, w·Hw", ("layer", "neuron", "batchnorm", "permutation")
    ),
    "trace_weighted": MetricEntry(
        trace_weighted,
        "trace of the Hessian in units of each weight, Σ w² H_ii",
        ("layer", "neuron", "batchnorm", "permutation"),
    ),
    "layer_trace": MetricEntry(
        layer_trace,
        "sum over parameter tensors of squared norm times trace of the Hessian's block",
        ("layer", "batchnorm", "permutation"),
    ),
    "layer_lambda_max": MetricEntry(
        layer_lambda_max,
        "largest over parameter tensors of squared norm times largest eigenvalue of the block",
        ("layer", "batchnorm", "permutation"),
    ),
    "relative_flatness": MetricEntry(
        relative_flatness,
        "curvature of the last layer weighted by the products of its rows",
        ("layer", "batchnorm", "permutation", "folding"),
    ),
    "lpf": MetricEntry(
        lpf,
        "mean loss under absolute Gaussian weight noise, LPF-SGD's smoothed loss",
        ("permutation",),
        radius="sigma",
        radii=ABSOLUTE,
    ),
    "local_entropy": MetricEntry(
        local_entropy,
        "minus the log of the low-loss share of a Gaussian around the weights",
        ("permutation",),
    ),
    "symmetric_gap": MetricEntry(
        symmetric_gap,
        "mean of both sides' loss less the clean loss under S-SGD's own noise",
        ("layer", "batchnorm", "permutation", "folding"),
        "c",
        RELATIVE,
    ),
    "asymmetry": MetricEntry(
        asymmetry,
        "half the difference of both sides' loss under S-SGD's own noise, mean size",
        ("layer", "batchnorm", "permutation", "folding"),
        "c",
        RELATIVE,
        flatter=None,
    ),
    "pac_bayes_sigma": MetricEntry(
        pac_bayes_sigma,
        "1/σ² of the largest relative weight noise that costs 0.1 of the accuracy",
        ("layer", "neuron", "batchnorm", "permutation", "logit"),
    ),
    "input_jacobian": MetricEntry(
        input_jacobian,
        "mean norm of the derivative of the outputs by the inputs",
        ("layer", "neuron", "batchnorm", "permutation", "folding"),
    ),
    "margin": MetricEntry(
        margin,
        "mean margin of the right class's output, in units of the outputs' spread",
        ("layer", "neuron", "batchnorm", "permutation", "folding", "logit"),
        flatter=None,
    ),
    "quantization_drop": MetricEntry(
        quantization_drop,
        "accuracy lost by rounding the weights to few bits, filter by filter",
        ("layer", "batchnorm", "permutation", "folding", "logit"),
        "bits",
        (8, 7, 6, 5, 4, 3, 2),
    ),
    "noise_robustness": MetricEntry(
        noise_robustness,
        "accuracy lost under random relative weight noise",
        ("layer", "neuron", "batchnorm", "permutation", "logit"),
        "sigma",
        RELATIVE,
    ),
    "volume": MetricEntry(
        volume,
        "median relative distance along random directions at which the loss has risen",
        ("layer", "batchnorm", "permutation", "folding"),
        flatter="higher",
    ),
}
