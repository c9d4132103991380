"""Curvature of the loss: symmetric operators, their eigenvalues, traces and densities, with errors.

Operators know models; eigenpairs, traces and densities know operators only, so they are tested
on planted spectra.
"""

from ssgd_analysis.curvature.eigen.cross_fit import CrossFit, cross_fit
from ssgd_analysis.curvature.eigen.eigenpairs import (
    Eigenpair,
    Spectrum,
    block_eigenpairs,
    eigenpairs,
)
from ssgd_analysis.curvature.estimates.density import Density, Share, spectral_density
from ssgd_analysis.curvature.estimates.diagonal import Diagonal, diagonal
from ssgd_analysis.curvature.estimates.layers import layer_traces
from ssgd_analysis.curvature.estimates.trace import Trace, trace
from ssgd_analysis.curvature.operators.block_diagonal import BlockDiagonalOperator
from ssgd_analysis.curvature.operators.covariance import CovarianceOperator
from ssgd_analysis.curvature.operators.fisher import FisherOperator, MonteCarloFisherOperator
from ssgd_analysis.curvature.operators.ggn import GGNOperator
from ssgd_analysis.curvature.operators.hessian import HessianOperator
from ssgd_analysis.curvature.operators.operator import DenseOperator, Operator, ScaledOperator
from ssgd_analysis.curvature.operators.problem_operator import BatchOperator, ProblemOperator
from ssgd_analysis.curvature.products.plan import Options, Plan
from ssgd_analysis.curvature.survey import Survey, survey

OPERATORS: dict[str, type[ProblemOperator]] = {
    "hessian": HessianOperator,
    "ggn": GGNOperator,
    "fisher": FisherOperator,
    "fisher-mc": MonteCarloFisherOperator,
    "covariance": CovarianceOperator,
}

__all__ = [
    "OPERATORS",
    "BatchOperator",
    "BlockDiagonalOperator",
    "CovarianceOperator",
    "CrossFit",
    "DenseOperator",
    "Density",
    "Diagonal",
    "Eigenpair",
    "FisherOperator",
    "GGNOperator",
    "HessianOperator",
    "MonteCarloFisherOperator",
    "Operator",
    "Options",
    "Plan",
    "ProblemOperator",
    "ScaledOperator",
    "Share",
    "Spectrum",
    "Survey",
    "Trace",
    "block_eigenpairs",
    "cross_fit",
    "diagonal",
    "eigenpairs",
    "layer_traces",
    "spectral_density",
    "survey",
    "trace",
]
