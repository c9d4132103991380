"""Adam as a method."""

from ssgd_analysis.methods.sgd import SGD


class Adam(SGD):
    """Adam: the plain gradient, one pass a step, then Adam steps with it.

    m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g²; w ← w − γ m̂/(√v̂ + ε), with m̂ and v̂ the
    moments over 1 − βᵗ. Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1; torch's.
    """

    OPTIMIZER = "adam"
