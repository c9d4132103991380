"""A problem: model, loss and batches, and what the loss of a split is the mean over."""

from ssgd_analysis.problem.loss import Loss
from ssgd_analysis.problem.problem import Batch, Problem

__all__ = ["Batch", "Loss", "Problem"]
