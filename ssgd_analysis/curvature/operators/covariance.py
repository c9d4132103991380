"""The covariance of the examples' gradients."""

import torch
from torch import Tensor

from ssgd_analysis.curvature.operators.fisher import FisherOperator
from ssgd_analysis.weights import flattened


class CovarianceOperator(FisherOperator):
    """Gradient covariance: the mean over examples of (g − ḡ)(g − ḡ)ᵀ, ḡ their mean.

    The empirical Fisher matrix less ḡ ḡᵀ: the noise of a minibatch of one, whose trace is the
    numerator of the gradient noise scale (McCandlish et al. 2018, arXiv 1812.06162).
    """

    _mean: tuple[object, Tensor] | None = None

    def part(self, index: int, block: Tensor) -> Tensor:
        """One batch's second moment less the outer product of the mean of all."""
        versions = self.engine.versions
        if self._mean is None or self._mean[0] is not versions:
            self._mean = (versions, flattened(self.problem.gradient()))
        mean = self._mean[1]
        return super().part(index, block) - torch.outer(mean, mean @ block)
