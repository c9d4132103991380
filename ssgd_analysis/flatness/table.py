"""The table of metrics; its order is that of lists and of ``all``."""

from ssgd_analysis.flatness.metric import Metric
from ssgd_analysis.flatness.metrics.adaptive_worst import adaptive_worst as adaptive_worst
from ssgd_analysis.flatness.metrics.asymmetry import asymmetry as asymmetry
from ssgd_analysis.flatness.metrics.density_moments import density_moments as density_moments
from ssgd_analysis.flatness.metrics.expected import expected as expected
from ssgd_analysis.flatness.metrics.fisher_rao import fisher_rao as fisher_rao
from ssgd_analysis.flatness.metrics.frobenius import frobenius as frobenius
from ssgd_analysis.flatness.metrics.gradient_covariance_trace import (
    gradient_covariance_trace as gradient_covariance_trace,
)
from ssgd_analysis.flatness.metrics.gradient_noise_scale import (
    gradient_noise_scale as gradient_noise_scale,
)
from ssgd_analysis.flatness.metrics.gradient_norm import gradient_norm as gradient_norm
from ssgd_analysis.flatness.metrics.input_jacobian import input_jacobian as input_jacobian
from ssgd_analysis.flatness.metrics.keskar import keskar as keskar
from ssgd_analysis.flatness.metrics.lambda_max import lambda_max as lambda_max
from ssgd_analysis.flatness.metrics.layer_lambda_max import layer_lambda_max as layer_lambda_max
from ssgd_analysis.flatness.metrics.layer_trace import layer_trace as layer_trace
from ssgd_analysis.flatness.metrics.local_entropy import local_entropy as local_entropy
from ssgd_analysis.flatness.metrics.lpf import lpf as lpf
from ssgd_analysis.flatness.metrics.m_sharpness import m_sharpness as m_sharpness
from ssgd_analysis.flatness.metrics.margin import margin as margin
from ssgd_analysis.flatness.metrics.negative_mass import negative_mass as negative_mass
from ssgd_analysis.flatness.metrics.noise_robustness import noise_robustness as noise_robustness
from ssgd_analysis.flatness.metrics.pac_bayes_sigma import pac_bayes_sigma as pac_bayes_sigma
from ssgd_analysis.flatness.metrics.quantization_drop import quantization_drop as quantization_drop
from ssgd_analysis.flatness.metrics.relative_flatness import relative_flatness as relative_flatness
from ssgd_analysis.flatness.metrics.sam import sam as sam
from ssgd_analysis.flatness.metrics.spectral_norm_ratio import (
    spectral_norm_ratio as spectral_norm_ratio,
)
from ssgd_analysis.flatness.metrics.symmetric_gap import symmetric_gap as symmetric_gap
from ssgd_analysis.flatness.metrics.trace import trace as trace
from ssgd_analysis.flatness.metrics.trace_per_parameter import (
    trace_per_parameter as trace_per_parameter,
)
from ssgd_analysis.flatness.metrics.trace_weighted import trace_weighted as trace_weighted
from ssgd_analysis.flatness.metrics.volume import volume as volume
from ssgd_analysis.flatness.metrics.w_h_w import w_h_w as w_h_w
from ssgd_analysis.flatness.metrics.worst_case import worst_case as worst_case

METRICS: dict[str, Metric[...]] = {
    metric.name: metric
    for metric in (
        lambda_max,
        trace,
        trace_per_parameter,
        spectral_norm_ratio,
        frobenius,
        density_moments,
        negative_mass,
        gradient_norm,
        gradient_covariance_trace,
        gradient_noise_scale,
        expected,
        sam,
        worst_case,
        m_sharpness,
        keskar,
        adaptive_worst,
        fisher_rao,
        w_h_w,
        trace_weighted,
        layer_trace,
        layer_lambda_max,
        relative_flatness,
        lpf,
        local_entropy,
        symmetric_gap,
        asymmetry,
        pac_bayes_sigma,
        input_jacobian,
        margin,
        quantization_drop,
        noise_robustness,
        volume,
    )
}
