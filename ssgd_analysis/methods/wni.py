"""One-sided weight-noise injection."""

from ssgd_analysis.methods.weight_noise import WeightNoiseMethod


class WeightNoiseInjection(WeightNoiseMethod):
    """Weight-noise injection: the gradient at w + n, one pass, then a step at w.

    Same noise as S-SGD, one side only. With absolute noise and no momentum it is
    Anti-PGD seen from the clean iterate (Orvieto et al. 2022, arXiv 2202.02831).
    """

    DRAWS = ((0, 1),)
