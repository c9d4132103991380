"""LAMB as a method."""

from ssgd_analysis.methods.sgd import SGD


class LAMBMethod(SGD):
    """LAMB: the plain gradient; Adam's step, scaled in each layer to its weights' norm.

    You et al. 2020 (arXiv 1904.00962), algorithm 2; the equation is told at the optimizer
    ``LAMB`` in ``optimizers/layerwise.py``.
    """

    OPTIMIZER = "lamb"
