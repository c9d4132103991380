"""Did a training method really find a flatter minimum? Train, measure, compare, with errors.

The public names, each imported when it is first used, so that ``import ssgd_analysis`` is quick:

- training: ``SSGD`` (a ``torch.optim.Optimizer``), ``TrainConfig``, ``train``;
- a problem: ``Problem`` (model, loss, batches);
- curvature: ``HessianOperator``, ``GGNOperator``, ``FisherOperator``; ``eigenpairs``,
  ``trace``, ``spectral_density``;
- flatness, each ``(model, loss, batches) -> Measurement``: ``lambda_max``, ``hessian_trace``,
  ``expected``, ``sam``, ``worst_case``, ``m_sharpness``, ``adaptive_worst``, ``keskar``,
  ``fisher_rao``, ``trace_per_parameter``, ``spectral_norm_ratio``, ``frobenius``,
  ``density_moments``, ``negative_mass``, ``gradient_norm``, ``gradient_covariance_trace``,
  ``gradient_noise_scale``, ``w_h_w``, ``trace_weighted``, ``layer_trace``, ``layer_lambda_max``,
  ``relative_flatness``, ``lpf``, ``local_entropy``, ``symmetric_gap``, ``asymmetry``,
  ``pac_bayes_sigma``, ``input_jacobian``, ``margin``, ``quantization_drop``,
  ``noise_robustness``, ``volume``.
"""

import importlib
from typing import Any

_PLACES = {
    "SSGD": "methods",
    "TrainConfig": "runs",
    "train": "training",
    "Problem": "problem",
    "HessianOperator": "curvature",
    "GGNOperator": "curvature",
    "FisherOperator": "curvature",
    "DenseOperator": "curvature",
    "eigenpairs": "curvature",
    "trace": "curvature",
    "spectral_density": "curvature",
    "Measurement": "flatness",
    "lambda_max": "flatness",
    "hessian_trace": "flatness",
    "expected": "flatness",
    "sam": "flatness",
    "worst_case": "flatness",
    "m_sharpness": "flatness",
    "adaptive_worst": "flatness",
    "keskar": "flatness",
    "fisher_rao": "flatness",
    "density_moments": "flatness",
    "frobenius": "flatness",
    "gradient_covariance_trace": "flatness",
    "gradient_noise_scale": "flatness",
    "gradient_norm": "flatness",
    "layer_lambda_max": "flatness",
    "layer_trace": "flatness",
    "negative_mass": "flatness",
    "relative_flatness": "flatness",
    "spectral_norm_ratio": "flatness",
    "trace_per_parameter": "flatness",
    "trace_weighted": "flatness",
    "w_h_w": "flatness",
    "asymmetry": "flatness",
    "input_jacobian": "flatness",
    "local_entropy": "flatness",
    "lpf": "flatness",
    "margin": "flatness",
    "noise_robustness": "flatness",
    "pac_bayes_sigma": "flatness",
    "quantization_drop": "flatness",
    "symmetric_gap": "flatness",
    "volume": "flatness",
    "InputError": "errors",
    "WorkError": "errors",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name not in _PLACES:
        raise AttributeError(f"module 'ssgd_analysis' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ssgd_analysis.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
