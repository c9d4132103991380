"""Traces of passes: plain lists of operations, without those that do nothing."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
SAME_SHAPE = (aten.view.default, aten._unsafe_view.default, aten.expand.default)


def traced(function: Callable[..., Any], *arguments: Any) -> GraphModule:
    """The operations of a call, as a function of the same arguments.

    Args:
        function: of tensors, in lists too; it is run once.
        arguments: their shapes and dtypes are what the trace holds for.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # takes half a second to load

    module: GraphModule = make_fx(function)(*arguments)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    overloads = [n.target for n in nodes if isinstance(n.target, torch._ops.OpOverload)]
    changing = any(overload._schema.is_mutable for overload in overloads)
    for node in nodes:
        if node.target is aten.mul.Scalar and changing:
            continue  # its copy may be what is changed
        if _does_nothing(node):
            node.replace_all_uses_with(node.args[0])
        elif (product := _transposed_product(node)) is not None:
            with module.graph.inserting_before(node):
                left, right = (
                    module.graph.call_function(aten.transpose.int, (factor, 1, 2))
                    for factor in product.args
                )
                other = module.graph.call_function(aten.bmm.default, (right, left))
            other.meta = dict(node.meta)
            node.replace_all_uses_with(other)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _does_nothing(node: Node) -> bool:
    """A view of the same shape, or a product with the number 1 that keeps the dtype."""
    if node.target is aten.alias.default:
        return True
    source, one = node.args[0], node.args[1] if len(node.args) > 1 else None
    if not isinstance(source, Node) or _dtype(source) != _dtype(node):
        return False
    if node.target in SAME_SHAPE:
        return _shape(source) == _shape(node)
    return node.target is aten.mul.Scalar and type(one) is int and one == 1


def _transposed_product(node: Node) -> Node | None:
    """The bmm whose transposed result the node copies: Bᵀ Aᵀ is that without the copy."""
    if node.target is not aten.clone.default or _shape(node) is None:
        return None
    if node.kwargs.get("memory_format") is not torch.contiguous_format:
        return None
    turned = node.args[0]
    if not isinstance(turned, Node) or turned.target is not aten.transpose.int:
        return None
    if len(_shape(node) or ()) != 3 or turned.args[1:] not in ((1, 2), (2, 1), (-1, -2), (-2, -1)):
        return None
    product = turned.args[0]
    return product if isinstance(product, Node) and product.target is aten.bmm.default else None


def _shape(node: Node) -> tuple[int, ...] | None:
    value = node.meta.get("tensor_meta")
    return None if value is None else tuple(value.shape)


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("tensor_meta")
    return None if value is None else value.dtype
