"""S-SGD without the second pass: the two signs on consecutive steps."""

from ssgd_analysis.methods.weight_noise import WeightNoiseMethod


class AlternatingWeightNoise(WeightNoiseMethod):
    """Alternating weight noise: the gradient at w + n, at the next step at w − n, one pass each.

    n is drawn at steps 0, 2, 4, …; each odd step uses the draw of the one before it with the
    other sign, on its own minibatch. Seen from the noisy iterate this is Anti-PGD
    (Orvieto et al. 2022, arXiv 2202.02831) with noise that alternates +n, −n: the symmetry of
    S-SGD at the price of SGD, so a control of whether the second pass is needed.

    Where the size of the noise is relative to the weights, the same unit draw takes its size
    from each step's own weights; our choice, as is everything that S-SGD's settings name.
    """

    DRAWS = ((0, 1),)

    def turn_of(self, step: int) -> tuple[int, int]:
        """The even step before, and − at odd steps."""
        return step - step % 2, 1 - 2 * (step % 2)
