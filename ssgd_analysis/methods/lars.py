"""LARS as a method."""

from ssgd_analysis.methods.sgd import SGD


class LARSMethod(SGD):
    """LARS: the plain gradient; each layer's step is a share of its weights' norm.

    You, Gitman and Ginsburg 2017 (arXiv 1708.03888), algorithm 1; the equation is told at the
    optimizer ``LARS`` in ``optimizers/layerwise.py``.
    """

    OPTIMIZER = "lars"
