"""Linear layers of inputs that stay: their outputs move along a line where their weights do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ssgd_analysis.landscape.evaluation.rewrite import Kind, linear_parts

FEWEST_INPUTS = 48  # below, a product is as cheap as reading two tensors of its outputs


@dataclass(frozen=True)
class Line:
    """A linear layer x ↦ W x + b, affine in its weights: one node that adds, instead of multiplies.

    Args:
        source: the node of x.
        held: the nodes of W and b; there may be no b.
        along: their changes, for each direction.
        base: a new input: the outputs without the last direction.
        last: a new input: the outputs along the last direction.
        amount: a new input: how far along it.
    """

    source: fx.Node
    held: tuple[fx.Node, fx.Node | None]
    along: list[tuple[Tensor, Tensor | None]]
    base: fx.Node
    last: fx.Node
    amount: fx.Node

    def values(self, known: dict[fx.Node, Any]) -> list[Tensor]:
        """The outputs at the present weights, and along each direction."""
        weight, bias = self.held
        ends = [(known[weight], known[bias] if bias is not None else None), *self.along]
        return [F.linear(known[self.source], w, b) for w, b in ends]


def lines(
    graph: fx.Graph,
    kinds: dict[fx.Node, Kind],
    weights: Sequence[fx.Node],
    directions: Sequence[Sequence[Tensor]],
    *,
    spare: int,
) -> list[Line]:
    """Replace linear layers of the weights themselves over what stays.

    Args:
        graph: changed in place.
        kinds: what its nodes depend on.
        weights: the placeholders of the moving weights.
        directions: one tensor for each of them.
        spare: bytes for what is kept instead of products.
    """
    number = {node: index for index, node in enumerate(weights)}
    found: list[Line] = []
    for node in list(graph.nodes):
        parts = linear_parts(node)
        if parts is None or kinds.get(parts[0]) != (True, False):
            continue
        source, weight, bias, relu = parts
        if weight not in number or (bias is not None and bias not in number):
            continue
        outputs = node.meta["val"]
        need = outputs.numel() * outputs.element_size() * (len(directions) + 2)
        if weight.meta["val"].shape[1] < FEWEST_INPUTS or need > spare:
            continue
        spare -= need
        along = [
            (direction[number[weight]], None if bias is None else direction[number[bias]])
            for direction in directions
        ]
        with graph.inserting_before(next(iter(graph.nodes))):
            base, last, amount = (
                graph.placeholder(f"line{len(found)}_{name}") for name in ("base", "last", "amount")
            )
        with graph.inserting_before(node):
            moved = graph.call_function(_moved, (base, last, amount, relu))
        moved.meta["val"] = outputs
        node.replace_all_uses_with(moved)
        graph.erase_node(node)
        found.append(Line(source, (weight, bias), along, base, last, amount))
    return found


def _moved(base: Tensor, last: Tensor, amount: float, relu: bool) -> Tensor:
    outputs = torch.add(base, last, alpha=amount)
    return outputs.relu_() if relu else outputs
