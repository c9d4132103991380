"""A path through weight space: from one checkpoint to another, straight or bent."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError

State = dict[str, Tensor]  # every parameter (tied ones once) and buffer by name


@dataclass(frozen=True)
class WeightPath:
    """Weights as a function of t in [0, 1].

    The polygon through the start, the bends and the end takes each piece in equal t; the Bezier
    curve has the bends as its inner control points. Buffers and parameters that no bend holds go
    straight from start to end; other tensors jump at t = 1.

    Args:
        model: the one whose tensors are moved; those of the start fit it.
        start: at t = 0, exactly.
        end: at t = 1, exactly.
        bends: inner points, of the trained parameters only; none: the straight line.
        bezier: a Bezier curve, not a polygon.
    """

    model: nn.Module
    start: State
    end: State
    bends: tuple[State, ...] = ()
    bezier: bool = False

    @property
    def moving(self) -> list[str]:
        """Names of the parameters that require gradients."""
        return [name for name, p in self.model.named_parameters() if p.requires_grad]

    def at(self, t: float) -> State:
        """All tensors at t."""
        found = {}
        for name, start in self.start.items():
            end = self.end[name]
            bends = [bend[name] for bend in self.bends if name in bend]
            if start.is_floating_point() or start.is_complex():
                found[name] = self._between([start, *bends, end], t)
            else:
                found[name] = end if t == 1 else start
        return found

    def _between(self, knots: Sequence[Tensor], t: float) -> Tensor:
        """Steps of ``lerp`` only: it is exact at both ends and where both are equal."""
        if self.bezier:
            while len(knots) > 1:
                knots = [torch.lerp(a, b, t) for a, b in itertools.pairwise(knots)]
            return knots[0]
        position = t * (len(knots) - 1)
        piece = min(int(position), len(knots) - 2)
        return torch.lerp(knots[piece], knots[piece + 1], position - piece)

    def shares(self, t: float) -> list[float]:
        """How much each bend counts in the weights at t: the derivative by the bend."""
        last = len(self.bends) + 1
        if self.bezier:
            return [math.comb(last, k) * t**k * (1 - t) ** (last - k) for k in range(1, last)]
        return [max(0.0, 1 - abs(t * last - k)) for k in range(1, last)]

    def move_to(self, t: float) -> None:
        """Move the model to t; inside ``borrowed_state`` only."""
        put(self.model, self.at(t))

    def length(self) -> float:
        """L2 length over the parameters that require gradients, in float64."""
        straight = replace(self, bends=())
        times = [k / (len(self.bends) + 1) for k in range(1, len(self.bends) + 1)]
        # evenly spaced control points of what no bend holds make its straight line
        inner = [straight.at(t) | bend for t, bend in zip(times, self.bends, strict=True)]
        knots = [self.start, *inner, self.end]
        steps = [self._step(a, b) for a, b in itertools.pairwise(knots)]
        products = np.array([[math.fsum(map(dot, a, b)) for b in steps] for a in steps])
        if not self.bezier:
            return float(np.sqrt(np.diag(products)).sum())
        # |φ'(t)|² is a polynomial and positive but at cusps: 200 nodes are exact to rounding
        nodes, weights = np.polynomial.legendre.leggauss(200)
        degree = len(steps)
        t = (nodes + 1) / 2
        basis = np.stack([
            math.comb(degree - 1, k) * t**k * (1 - t) ** (degree - 1 - k) for k in range(degree)
        ])  # fmt: skip
        speed = degree * np.sqrt(np.einsum("kt,kl,lt->t", basis, products, basis).clip(0))
        return float(weights @ speed / 2)

    def _step(self, one: State, two: State) -> list[Tensor]:
        return [two[name].double() - one[name].double() for name in self.moving]


def line(model: nn.Module, other: nn.Module) -> WeightPath:
    """The straight line from one model's weights to another's.

    Args:
        model: the start; it is moved, and comes back, where the path is evaluated.
        other: the end, of the same architecture.

    Raises:
        InputError: two architectures; the first tensor that differs is named.
    """
    start, end = state(model), state(other)
    for name in [*start, *end]:
        if name not in start or name not in end:
            has, lacks = ("first", "second") if name in start else ("second", "first")
            raise InputError(
                f"the {has} checkpoint has a tensor '{name}' that the {lacks} one lacks: a path"
                " needs two checkpoints of one architecture"
            )
        if start[name].shape != end[name].shape:
            raise InputError(
                f"tensor '{name}' has shape {tuple(start[name].shape)} in the first checkpoint and"
                f" {tuple(end[name].shape)} in the second: a path needs two checkpoints of one"
                " architecture"
            )
    end = {name: tensor.to(start[name]) for name, tensor in end.items()}
    return WeightPath(model, start, end)


def state(model: nn.Module) -> State:
    """Copies of all parameters and buffers by name, tied ones once."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(model)}


def put(model: nn.Module, values: State) -> None:
    """Write values over a model's own tensors."""
    with torch.no_grad():
        for name, tensor in _tensors(model):
            tensor.copy_(values[name])


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def dot(one: Tensor, two: Tensor) -> float:
    """The inner product of two tensors."""
    return float((one * two).sum())
