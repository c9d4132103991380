"""S-SGD: symmetrical weight noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import setting
from ssgd_analysis.methods.weight_noise import WeightNoiseMethod, WeightNoiseSettings


@dataclass(frozen=True, kw_only=True)
class SymmetricSGDSettings(WeightNoiseSettings):
    """Settings of S-SGD."""

    minibatch: str = setting(
        "same",
        "both points see the same minibatch (2 passes), or a half each (1 pass)",
        choices=("same", "halves"),
    )


class SymmetricSGD(WeightNoiseMethod):
    """S-SGD: mean of the gradients at w + n and w − n, then the base optimizer steps at w.

    g = ½ [∇L_B(w + n) + ∇L_B(w − n)], n = c · rms(w_f) · s with random signs s and f the
    filter. Only "two adjacent points" and "symmetrical fixed-magnitude noise" are stated by
    the paper's abstract (Sung et al. 2020, arXiv 2009.02479); the noise law, what its size is
    relative to, the same minibatch at both points, noise-free biases and normalisation
    parameters, and BatchNorm statistics from the +n pass only are our choices, and options.

    To second order, and with Σ held constant, the mean step descends L + ½ Tr(ΣH), as one-sided
    noise does, while the first-order noise Hn cancels: on a quadratic it equals SGD exactly.
    """

    Settings = SymmetricSGDSettings
    POINTS = ((0, 1), (0, -1))

    @classmethod
    def passes(cls, settings: Any) -> float:
        """Two, or two over half a minibatch each."""
        whole = super().passes(settings)
        return whole if settings.minibatch == "same" else whole - 1

    def examples_of(self, inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """The same minibatch twice, or its halves.

        Raises:
            InputError: a minibatch of one cannot be halved.
        """
        if self.settings.minibatch == "same":
            return super().examples_of(inputs, targets)
        if len(inputs) < 2:
            raise InputError("minibatch=halves needs a batch size of at least 2")
        half = len(inputs) // 2
        return [(inputs[:half], targets[:half]), (inputs[half:], targets[half:])]
