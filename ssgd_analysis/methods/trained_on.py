"""What a method lowers in training besides the loss, in the terms of flatness metrics."""

import math
from dataclasses import dataclass

FILTER_NORM = "filter norm"


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """A quantity that a method lowers in training, so that a metric of it is no evidence.

    Args:
        kind: as of :class:`ssgd_analysis.flatness.metric.Perturbation`: ``noise``, ``ascent``,
            ``adaptive ascent``, ``entropy`` or ``gradient``.
        low: smallest radius over training.
        high: largest radius over training; zero: there is none.
        law: of noise, as S-SGD's ``noise_law``.
        scale: what the size of the noise is relative to, as S-SGD's ``noise_relative_to``. With
            ``filter norm`` it is in proportion to norms: relative to the rms its size differs
            between layers, so that it has no one radius.

    Example:
        >>> TrainedOn(kind="ascent", low=0.05, high=0.05).words
        'a worst case at rho = 0.05'
    """

    kind: str
    low: float = 0.0
    high: float = math.inf
    law: str = ""
    scale: str = ""

    @property
    def words(self) -> str:
        """The quantity in a sentence."""
        if self.kind == "gradient":
            return "the norm of the gradient"
        if self.kind == "entropy":
            return "the local entropy"
        if self.kind == "noise" and self.scale == FILTER_NORM:
            return f"{self.law} noise in proportion to filter norms"
        if self.kind == "noise":
            return f"{self.law} noise relative to {self.scale} at c = {self.high:g}"
        return f"a worst case at rho = {self.high:g}"


def noise_of_size(law: str, scale: str, size: float, factor: float) -> list[TrainedOn]:
    """Noise whose size goes between ``size`` and ``factor`` × ``size`` over training.

    Args:
        law: of the noise.
        scale: what its size is relative to.
        size: at the start, or at the end.
        factor: of the other end.
    """
    low, high = sorted((size, size * factor))
    return [TrainedOn(kind="noise", low=low, high=high, law=law, scale=scale)]
