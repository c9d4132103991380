"""S-SGD: symmetrical weight noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.weight_noise import WeightNoiseMethod, WeightNoiseSettings


@dataclass(frozen=True, kw_only=True)
class SymmetricSGDSettings(WeightNoiseSettings):
    """Settings of S-SGD."""

    pairs: int = setting(1, "independent pairs w ± n of a step", minimum=1)
    minibatch: str = setting(
        "same",
        "all points see the same minibatch (2 passes a pair), or an equal part each (1 in all)",
        choices=("same", "halves"),
    )


class SymmetricSGD(WeightNoiseMethod):
    """S-SGD: mean of the gradients at w + n and w − n, then the base optimizer steps at w.

    g = ½ [∇L_B(w + n) + ∇L_B(w − n)], n = c · rms(w_f) · s with random signs s and f the
    filter; with several pairs, the mean over as many independent n. Only "two adjacent points"
    and "symmetrical fixed-magnitude noise" are stated by
    the paper's abstract (Sung et al. 2020, arXiv 2009.02479); the noise law, what its size is
    relative to, the same minibatch at both points, noise-free biases and normalisation
    parameters, and BatchNorm statistics from the +n pass only are our choices, and options.

    To second order, and with Σ held constant, the mean step descends L + ½ Tr(ΣH), as one-sided
    noise does, while the first-order noise Hn cancels: on a quadratic it equals SGD exactly.
    With ``minibatch=halves`` the points see different examples, each example one point, all with
    the same weight: the mean is the same, but Hn no longer cancels.
    """

    Settings = SymmetricSGDSettings

    @classmethod
    def draws(cls, settings: Any) -> Sequence[tuple[int, int]]:
        """The points w + n and w − n, for each pair."""
        return [(draw, sign) for draw in range(settings.pairs) for sign in (1, -1)]

    @classmethod
    def passes_with_noise(cls, settings: Any) -> float:
        """Two a pair, or as many over a part of the minibatch each."""
        whole = super().passes_with_noise(settings)
        return whole if settings.minibatch == "same" else whole + 1 - 2 * settings.pairs

    @classmethod
    def smallest_pass(cls, settings: Any, batch_size: int) -> int:
        """The smallest part's, with ``minibatch=halves``."""
        return batch_size // (1 if settings.minibatch == "same" else 2 * settings.pairs)

    def examples_of(self, batch: Batch) -> Sequence[Batch]:
        """The same minibatch for all points, or its parts, whose sizes differ by one at most.

        Raises:
            InputError: fewer examples than points.
        """
        if self.settings.minibatch == "same":
            return super().examples_of(batch)
        count = 2 * self.settings.pairs
        if self.passes.size(batch) < count:
            raise InputError(f"minibatch=halves needs a batch size of at least {count}")
        return self.passes.parts(batch, count)
