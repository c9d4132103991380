"""Curvature of the loss: symmetric operators and what is read off them, each with its doubt.

Operators know models; eigenpairs, traces and densities know operators only, so they are tested
on planted spectra.
"""

from ssgd_analysis.curvature.density import Density, spectral_density
from ssgd_analysis.curvature.eigenpairs import Eigenpair, Spectrum, eigenpairs
from ssgd_analysis.curvature.gauss_newton import FisherOperator, GGNOperator
from ssgd_analysis.curvature.hessian import HessianOperator
from ssgd_analysis.curvature.operator import DenseOperator, Operator, ProblemOperator
from ssgd_analysis.curvature.trace import Trace, trace

OPERATORS: dict[str, type[ProblemOperator]] = {
    "hessian": HessianOperator,
    "ggn": GGNOperator,
    "fisher": FisherOperator,
}

__all__ = [
    "OPERATORS",
    "DenseOperator",
    "Density",
    "Eigenpair",
    "FisherOperator",
    "GGNOperator",
    "HessianOperator",
    "Operator",
    "ProblemOperator",
    "Spectrum",
    "Trace",
    "eigenpairs",
    "spectral_density",
    "trace",
]
