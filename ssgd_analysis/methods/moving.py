"""How weight noise reaches a model: it moves the weights, or the products of its layers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.methods.per_sample import per_sample_noise, perturbable
from ssgd_analysis.weights import PLAIN, Filters, Noise, borrowed_weights

NOISE_PER = ("step", "layer", "sample")

Move = Callable[[int, int], None]  # (seed of a draw, sign): sets the noise of the next pass


class WeightMover:
    """Brings noise to some parameters of a model, per step, per layer or per example.

    Args:
        parameters: those that get noise.
        noise: law of the noise, and what its size is relative to.
        filters: how each of the parameters divides into filters.
        per: one of :data:`NOISE_PER`.
        names: of the parameters; needed with ``per="layer"``.
        model: holds the parameters; needed with ``per="sample"``.

    Raises:
        InputError: ``per="sample"`` for a model without layers whose products can be perturbed.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        noise: Noise,
        filters: Sequence[Filters],
        *,
        per: str = "step",
        names: Sequence[str] = (),
        model: nn.Module | None = None,
    ) -> None:
        self.parameters, self.noise, self.filters = list(parameters), noise, list(filters)
        self.layers = by_layer(names) if per == "layer" and names else None
        self.model = model
        self.products = []
        if per == "sample":
            assert model is not None
            self.products = perturbable(model, self.parameters)

    def moving(self, scales: Sequence[float], rank: int = 0) -> AbstractContextManager[Move]:
        """Give access to the noise while the passes of one step are made.

        Args:
            scales: noise scale c of each of the parameters.
            rank: of this process; the examples of each process have their own noise.
        """
        if self.model is None or not self.products:
            pairs = list(zip(self.parameters, scales, strict=True))
            return moving_weights(pairs, self.noise, self.layers, self.filters)
        by_weight = dict(zip(self.parameters, scales, strict=True))
        sizes = [by_weight[layer.weight] for layer in self.products]
        return per_sample_noise(self.model, self.products, self.noise, sizes, rank)


@contextmanager
def moving_weights(
    parameters: Sequence[tuple[Tensor, float]],
    noise: Noise,
    layers: Sequence[Sequence[int]] | None = None,
    filters: Sequence[Filters] = (),
) -> Iterator[Move]:
    """Lend parameters to be moved from one noisy point to the next; their exact bits come back.

    The noise is never stored: at w − n after w + n the weights are mirrored at the clean ones,
    which are needed anyway to bring the exact bits back.

    Args:
        parameters: each with its noise scale c; those with c = 0 are left alone.
        noise: law and what c is relative to.
        layers: indices into ``parameters``; if given, each draw moves one of these groups only.
        filters: how each of the parameters divides into filters; default: along axis 0.

    Yields:
        A function of (seed, sign): it moves to w + sign · c · noise of that seed.
    """
    filters = filters or [PLAIN] * len(parameters)
    noisy = [index for index, (_, scale) in enumerate(parameters) if scale]
    weights = [parameters[index][0].detach() for index in noisy]
    moving = [(w, parameters[i][1], filters[i]) for i, w in zip(noisy, weights, strict=True)]
    point: tuple[int, int] | None = None
    with borrowed_weights(weights) as clean:

        def move(seed: int, sign: int) -> None:
            nonlocal point
            last, point = point, (seed, sign)
            if not weights or last == point:
                return
            if last == (seed, -sign):
                torch._foreach_neg_(weights)
                torch._foreach_add_(weights, clean, alpha=2)
                return
            if last is not None:
                torch._foreach_copy_(weights, clean)
            chosen = moving
            if layers is not None:
                layer = set(layers[seeds.derive(seed, "layer") % len(layers)])
                chosen = [one for index, one in zip(noisy, moving, strict=True) if index in layer]
            if chosen:
                moved, sizes, own_filters = zip(*chosen, strict=True)
                draws = noise.draw(moved, [sign * size for size in sizes], seed, own_filters)
                torch._foreach_add_(moved, draws)

        yield move


def by_layer(names: Sequence[str]) -> list[list[int]]:
    """Indices of the parameters that belong to one module, for each module.

    Example:
        >>> by_layer(["0.weight", "0.bias", "2.weight"])
        [[0, 1], [2]]
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name.rpartition(".")[0], []).append(index)
    return list(groups.values())
