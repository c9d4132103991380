"""AdamW as a method."""

from ssgd_analysis.methods.sgd import SGD


class AdamW(SGD):
    """AdamW: the plain gradient, one pass a step, then AdamW steps with it.

    Adam's step after w ← (1 − γ λ) w. Loshchilov and Hutter 2019 (arXiv 1711.05101),
    algorithm 2; torch's. Its weight decay λ is the run's, 0 by default, for all methods alike.
    """

    OPTIMIZER = "adamw"
