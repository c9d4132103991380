"""The equal-cost control of S-SGD."""

from ssgd_analysis.methods.weight_noise import WeightNoiseMethod


class TwoDrawWeightNoise(WeightNoiseMethod):
    """Weight noise, two independent draws: mean gradient at w + n and w + n′.

    Costs what S-SGD costs, without the symmetry: it tells the effect of the sign pair from
    that of a second pass.
    """

    DRAWS = ((0, 1), (1, 1))
