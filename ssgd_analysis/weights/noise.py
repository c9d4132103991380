"""Noise for weights: a law, and what its size is relative to."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.errors import unknown
from ssgd_analysis.weights.groups import grouped, rms

LAWS = ("binary", "gaussian", "sphere", "uniform")
SCALES = ("filter", "layer", "weight", "none")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Weight noise of unit relative size: multiply by the noise scale c.

    Every law has mean zero and root mean square one, so that one c means one size:

    - ``binary``: ±1, fixed magnitude, only the sign is random (our reading of the
      "fixed-magnitude" noise of S-SGD, arXiv 2009.02479; the paper's own law is unknown to us);
    - ``gaussian``: N(0, 1);
    - ``sphere``: a Gaussian direction rescaled so that each group has root mean square
      exactly one (fixed norm, random direction, as AdaSmoothOut, arXiv 1805.07898);
    - ``uniform``: U(−√3, √3).

    The size is relative to: ``filter``, the rms of the weight's filter; ``layer``, the rms of
    its tensor; ``weight``, its own absolute value; ``none``, one (absolute noise).

    Args:
        law: one of :data:`LAWS`.
        scale: one of :data:`SCALES`.

    Raises:
        InputError: a name that is in neither table.
    """

    law: str = "binary"
    scale: str = "filter"

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise unknown("noise law", self.law, LAWS)
        if self.scale not in SCALES:
            raise unknown("noise scale", self.scale, SCALES)

    def sample(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noise for one parameter.

        Args:
            weight: the clean parameter, any shape; it sets the scale.
            generator: on the parameter's device.

        Returns:
            A new tensor like ``weight``.
        """
        noise = self._unit(weight, generator)
        if self.scale == "weight":
            return noise.mul_(weight.abs())
        if self.scale == "none":
            return noise
        return noise.mul_(rms(weight, self.scale))

    def _unit(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        if self.law == "binary":
            return random_signs(weight.numel(), generator).reshape(weight.shape).to(weight.dtype)
        noise = torch.empty_like(weight, memory_format=torch.contiguous_format)
        if self.law == "uniform":
            return noise.uniform_(-(3**0.5), 3**0.5, generator=generator)
        noise.normal_(generator=generator)
        if self.law == "sphere":
            rows = grouped(noise, "filter" if self.scale == "filter" else "layer")
            rows.div_(rows.square().mean(dim=1, keepdim=True).sqrt())
        return noise


# Row b holds the signs that the eight bits of the byte b stand for.
_BYTE_SIGNS = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).float() * 2 - 1


def random_signs(count: int, generator: torch.Generator) -> Tensor:
    """Independent ±1, each with probability ½, from 64-bit draws.

    Bernoulli draws one number for each sign, which took most of an S-SGD step on a small
    network (13 times slower than this; ``benchmarks/training.py``).

    Args:
        count: how many.
        generator: its device is that of the result.

    Returns:
        Shape (count,), float32.
    """
    words = torch.empty((count + 63) // 64, dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    table = _BYTE_SIGNS.to(generator.device)
    return table.index_select(0, words.view(torch.uint8).int()).reshape(-1)[:count]
