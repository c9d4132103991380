"""The covariance of the examples' gradients."""

import torch
from torch import Tensor

from ssgd_analysis.curvature.operators.fisher import FisherOperator
from ssgd_analysis.weights import flattened


class CovarianceOperator(FisherOperator):
    """Gradient covariance: the mean over examples of (g − ḡ)(g − ḡ)ᵀ, ḡ their mean.

    The empirical Fisher matrix less ḡ ḡᵀ: the noise of a minibatch of one, whose trace is the
    numerator of the gradient noise scale (McCandlish et al. 2018, arXiv 1812.06162).

    Args:
        problem: model, loss and batches.
        options: how to multiply; by default double backward on graphs that stay in memory.

    Raises:
        InputError: as :class:`~ssgd_analysis.curvature.FisherOperator`.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis.curvature import CovarianceOperator
        >>> from ssgd_analysis.problem import Problem
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> problem = Problem(model, nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])
        >>> CovarianceOperator(problem).to_dense()
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """

    _mean: tuple[object, Tensor] | None = None

    def part(self, index: int, block: Tensor) -> Tensor:
        """One batch's second moment less the outer product of the mean of all."""
        versions = self.engine.versions
        if self._mean is None or self._mean[0] is not versions:
            self._mean = (versions, flattened(self.problem.gradient()))
        mean = self._mean[1]
        return super().part(index, block) - torch.outer(mean, mean @ block)
