"""Noise for weights: a law, and what its size is relative to."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.errors import unknown
from ssgd_analysis.weights.filters import PLAIN, Filters
from ssgd_analysis.weights.groups import group_norms, group_size, grouped, ungrouped

LAWS = ("binary", "gaussian", "sphere", "uniform", "laplace")
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
    - ``uniform``: U(−√3, √3);
    - ``laplace``: the density exp(−√2 |x|) / √2.

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

    def sample(
        self, weight: Tensor, generator: torch.Generator, filters: Filters = PLAIN
    ) -> Tensor:
        """Draw noise for one parameter.

        Args:
            weight: the clean parameter, any shape; it sets the scale.
            generator: on the parameter's device.
            filters: how it divides into filters; constants get no noise.

        Returns:
            A new tensor like ``weight``.
        """
        (noise,) = self.units([weight], generator, [filters])
        if self.scale == "none":
            return noise
        return noise.mul_(*self._sizes([weight], [1.0], [filters]))

    def _sizes(
        self, weights: Sequence[Tensor], scales: Sequence[float], filters: Sequence[Filters]
    ) -> list[Tensor]:
        """What the noise is relative to, times c, for each weight; shaped to multiply it."""
        if self.scale == "weight":
            sizes, factors = [weight.abs() for weight in weights], list(scales)
        else:  # norm / √count is the rms: one division less for each weight
            groups = [group_norms(w, self.scale, f) for w, f in zip(weights, filters, strict=True)]
            sizes = [norms for norms, _ in groups]
            factors = [c / n**0.5 for c, (_, n) in zip(scales, groups, strict=True)]
        torch._foreach_mul_(sizes, factors)
        return sizes

    def units(
        self,
        weights: Sequence[Tensor],
        generator: torch.Generator,
        filters: Sequence[Filters] = (),
    ) -> list[Tensor]:
        """Draw noise of root mean square one for several parameters at once.

        One long draw, cut into pieces: for a small network a draw for each parameter costs
        more time than the numbers.

        Args:
            weights: they give shapes and types; all on the generator's device.
            generator: fixes the noise.
            filters: how each divides into filters; default: along axis 0, without constants.
                Constants get no noise, and take nothing of the other entries'.

        Returns:
            One tensor for each of ``weights``, contiguous.
        """
        if not weights:
            return []
        filters = filters or [PLAIN] * len(weights)
        dtypes = {weight.dtype for weight in weights}
        counts = [weight.numel() for weight in weights]
        flat = self._flat(sum(counts), functools.reduce(torch.promote_types, dtypes), generator)
        pieces = zip(flat.split_with_sizes(counts), weights, strict=True)
        units = [piece.view(weight.shape) for piece, weight in pieces]
        if len(dtypes) > 1:
            units = [unit.to(weight.dtype) for unit, weight in zip(units, weights, strict=True)]
        units = [own.still(unit) for own, unit in zip(filters, units, strict=True)]
        if self.law == "sphere":
            scope = "filter" if self.scale == "filter" else "layer"
            units = [_on_sphere(n, scope, own) for n, own in zip(units, filters, strict=True)]
        return units

    def _flat(self, count: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        if self.law == "binary":
            return random_signs(count, generator, dtype)
        noise = torch.empty(count, dtype=dtype, device=generator.device)
        if self.law == "uniform":
            return noise.uniform_(-(3**0.5), 3**0.5, generator=generator)
        if self.law == "laplace":
            noise.exponential_(2**0.5, generator=generator)
            return noise.mul_(random_signs(count, generator, dtype))
        return noise.normal_(generator=generator)

    def draw(
        self,
        weights: Sequence[Tensor],
        scales: Sequence[float],
        seed: int,
        filters: Sequence[Filters] = (),
    ) -> list[Tensor]:
        """Noise for several parameters: c · size · unit draw for each.

        Args:
            weights: the clean parameters; they set the sizes.
            scales: c for each of them.
            seed: fixes the noise, on every device.
            filters: as of :meth:`units`.

        Returns:
            One new tensor for each of ``weights``.
        """
        filters = filters or [PLAIN] * len(weights)
        noises: dict[int, Tensor] = {}
        for device in {weight.device: None for weight in weights}:
            indices = [i for i, weight in enumerate(weights) if weight.device == device]
            own_weights = [weights[i].detach() for i in indices]
            own_filters = [filters[i] for i in indices]
            noise = self.units(own_weights, torch.Generator(device).manual_seed(seed), own_filters)
            factors: list[Any] = [scales[i] for i in indices]
            if self.scale != "none":
                factors = self._sizes(own_weights, factors, own_filters)
            torch._foreach_mul_(noise, factors)
            noises.update(zip(indices, noise, strict=True))
        return [noises[i] for i in range(len(weights))]


def _on_sphere(noise: Tensor, scope: str, filters: Filters) -> Tensor:
    """Noise of which each group has root mean square one; ``noise`` is used up."""
    rows = grouped(noise, scope, filters)
    sizes = rows.square().mean(dim=1, keepdim=True).sqrt_()
    if filters.constant is not None:  # zeros that are in the mean
        sizes *= math.sqrt(rows.shape[1] / group_size(noise.shape, scope, filters))
    rows.div_(sizes.clamp_min_(torch.finfo(rows.dtype).tiny))
    return ungrouped(rows, noise.shape, scope, filters)


@functools.cache
def _byte_signs(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Row b holds the signs that the eight bits of the byte b stand for."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return (bits * 2 - 1).to(device, dtype)


def random_signs(
    count: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Independent ±1, each with probability ½, from 64-bit draws.

    Bernoulli draws one number for each sign, which took most of an S-SGD step on a small
    network (13 times slower than this; ``benchmarks/training.py``).

    Args:
        count: how many.
        generator: its device is that of the result.
        dtype: of the result.

    Returns:
        Shape (count,).
    """
    device = generator.device
    words = torch.empty((count + 63) // 64, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    signs = _byte_signs(device, dtype).index_select(0, words.view(torch.uint8).int())
    return signs.view(-1)[:count]
