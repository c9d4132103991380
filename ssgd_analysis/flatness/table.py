"""The table of metrics, by name."""

from dataclasses import dataclass

from ssgd_analysis.flatness.metric import Metric
from ssgd_analysis.flatness.metrics.adaptive_worst import adaptive_worst
from ssgd_analysis.flatness.metrics.expected import expected
from ssgd_analysis.flatness.metrics.fisher_rao import fisher_rao
from ssgd_analysis.flatness.metrics.keskar import keskar
from ssgd_analysis.flatness.metrics.lambda_max import lambda_max
from ssgd_analysis.flatness.metrics.m_sharpness import m_sharpness
from ssgd_analysis.flatness.metrics.sam import sam
from ssgd_analysis.flatness.metrics.trace import hessian_trace
from ssgd_analysis.flatness.metrics.worst_case import worst_case


@dataclass(frozen=True)
class MetricEntry:
    """One line of the table.

    Args:
        measure: ``(model, loss, batches, *, seed, …) -> Measurement``.
        summary: one line.
        invariant_to: changes of the same function that leave the value alone; names of
            :data:`ssgd_analysis.flatness.transformations.TRANSFORMATIONS`.
        radius: the setting that is a radius or a noise scale, if there is one: a value is a
            point of the curve over it.
        radii: the default grid of that curve.
        flatter: which values mean a flatter minimum: ``"lower"``, ``"higher"``; ``None``: neither.
        linf_radii: the grid for ``norm="linf"``, where that is a setting.
    """

    measure: Metric
    summary: str
    invariant_to: tuple[str, ...] = ()
    radius: str = ""
    radii: tuple[float, ...] = ()
    flatter: str | None = "lower"
    linf_radii: tuple[float, ...] = ()

    @property
    def invariant(self) -> bool:
        """Whether no rescaling of the weights moves it: only such a metric can decide."""
        return {"layer", "neuron", "batchnorm"} <= set(self.invariant_to)


RELATIVE = (0.05, 0.1, 0.2, 0.4)  # radii relative to the weights, as in arXiv 2302.07011

METRICS = {
    "lambda_max": MetricEntry(lambda_max, "largest eigenvalue of the Hessian"),
    "trace": MetricEntry(hessian_trace, "trace of the Hessian"),
    "expected": MetricEntry(
        expected,
        "mean rise of the loss under random relative weight noise, antithetic pairs",
        ("layer", "neuron", "batchnorm"),
        "sigma",
        RELATIVE,
    ),
    "sam": MetricEntry(
        sam,
        "rise of the loss after one ascent step of length rho",
        radius="rho",
        radii=(0.01, 0.02, 0.05, 0.1, 0.2),
    ),
    "worst_case": MetricEntry(
        worst_case,
        "largest rise of the loss found within a ball of radius rho",
        radius="rho",
        radii=(0.01, 0.02, 0.05, 0.1, 0.2),
        linf_radii=(0.0005, 0.001, 0.002, 0.004),
    ),
    "m_sharpness": MetricEntry(
        m_sharpness,
        "mean over groups of m examples of each group's own worst case",
        radius="rho",
        radii=(0.01, 0.02, 0.05, 0.1, 0.2),
        linf_radii=(0.0005, 0.001, 0.002, 0.004),
    ),
    "keskar": MetricEntry(
        keskar,
        "largest loss in a box of size epsilon, per cent of 1 + loss",
        radius="epsilon",
        radii=(1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
    ),
    "adaptive_worst": MetricEntry(
        adaptive_worst,
        "largest rise of the loss found within an elementwise relative ball",
        ("layer", "neuron", "batchnorm"),
        "rho",
        (0.1, 0.2, 0.5, 1.0, 2.0),
        linf_radii=(0.001, 0.002, 0.004, 0.008),
    ),
    "fisher_rao": MetricEntry(
        fisher_rao,
        "Fisher-Rao norm: weights times Fisher matrix times weights",
        ("layer", "neuron"),
    ),
}
