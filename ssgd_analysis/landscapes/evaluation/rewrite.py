"""Changes to a traced forward pass that alter its values by rounding only."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

aten = torch.ops.aten
NORMS = (
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
)
# what returns memory of its own, not a view of an input
FRESH = {aten.convolution.default, aten.addmm.default, aten.mm.default, aten.add.Tensor}
FRESH |= {aten.add_.Tensor, aten.relu_.default, aten.mul.Tensor, aten.bmm.default}
# what torch's own recurrent cells write in place
WRITING = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.tanh_.default: aten.tanh.default,
}
VIEWS = {aten.reshape.default, aten.permute.default, aten.transpose.int, aten.unsqueeze.default}
Kind = tuple[bool, bool]  # depends on the inputs, depends on what moves
MANY_COLUMNS = 64  # entries of a patch: above, the copies of the inputs cost more than they save


def dependences(graph: fx.Graph, data: fx.Node, moving: set[fx.Node]) -> dict[fx.Node, Kind]:
    """For each node, whether it depends on the inputs and on what moves.

    Args:
        graph: of operations.
        data: the placeholder of the inputs.
        moving: the placeholders of what changes from point to point.
    """
    found: dict[fx.Node, Kind] = {}
    for node in graph.nodes:
        above = [found[source] for source in node.all_input_nodes]
        on_data = node is data or any(kind[0] for kind in above)
        found[node] = on_data, node in moving or any(kind[1] for kind in above)
    return found


def rewrite(whole: fx.GraphModule, data: fx.Node, moving: set[fx.Node], *, cpu: bool) -> None:
    """The same outputs with fewer and cheaper operations.

    Args:
        whole: a graph of aten operations as ``make_fx`` traces them; changed in place.
        data: the placeholder of the inputs.
        moving: the placeholders of what changes from point to point.
        cpu: rewrite for the CPU's kernels, too.
    """
    graph = whole.graph
    kinds = dependences(graph, data, moving)
    node: Any
    for node in graph.nodes:
        if node.target in WRITING and len(node.args[0].users) == 1:
            node.target = WRITING[node.target]  # written in place again below, where that is safe
        padded = node.target is aten.constant_pad_nd.default and not any(node.args[1])
        if padded or node.target is aten.alias.default:  # copies of what is there already
            node.replace_all_uses_with(node.args[0])
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # layouts may differ from those of the trace
    for node in list(graph.nodes):
        _fold(graph, node, kinds)
    if cpu:
        for node in list(graph.nodes):
            _convolution(graph, node, kinds)
    graph.eliminate_dead_code()
    _in_place(graph, dependences(graph, data, moving))
    whole.recompile()


def _fold(graph: fx.Graph, norm: Any, kinds: dict[fx.Node, Kind]) -> None:
    """Normalisation by fixed statistics goes into the weights of the convolution before it."""
    if norm.target not in NORMS:
        return
    source, gamma, beta, mean, variance, *others = norm.args
    trained = norm.target is not NORMS[1] and others[0] is not False
    if trained or not isinstance(mean, fx.Node) or not isinstance(variance, fx.Node):
        return
    if not isinstance(source, fx.Node) or source.target is not aten.convolution.default:
        return
    weight, bias, transposed = source.args[1], source.args[2], source.args[6]
    parts = [weight, bias, gamma, beta, mean, variance]
    if transposed or len(source.users) > 1 or any(kinds[p][0] for p in parts if p is not None):
        return
    if len({_value(part).dtype for part in parts if part is not None}) > 1:
        return  # under autocast the products are of another type than the statistics
    with graph.inserting_before(source):
        inverse = graph.call_function(_inverse, (variance, others[-1]))
        both = graph.call_function(_folded, (weight, bias, gamma, beta, mean, inverse))
        folded = [graph.call_function(operator.getitem, (both, i)) for i in (0, 1)]
    folded[0].meta["val"], folded[1].meta["val"] = _value(weight), _value(mean)
    source.args = (source.args[0], *folded, *source.args[3:])
    for user in list(norm.users):
        if user.target is operator.getitem and user.args[1] == 0:
            user.replace_all_uses_with(source)


def _inverse(variance: Tensor, eps: float) -> Tensor:
    return (variance + eps).rsqrt()


def _folded(
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that normalises what it gives."""
    scale = inverse if gamma is None else gamma * inverse
    centre = mean if bias is None else mean - bias
    shift = -centre * scale if beta is None else torch.addcmul(beta, centre, scale, value=-1)
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), shift


def _convolution(graph: fx.Graph, node: Any, kinds: dict[fx.Node, Kind]) -> None:
    """Channels last; over what stays, patches that are copied out once, and a product.

    A convolution of a few channels is bound by how it reads them.
    """
    if node.target is not aten.convolution.default or _value(node).dim() != 4:
        return
    source, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    entries = _value(weight)[0].numel()
    steady = not kinds[source][1] and not transposed and groups == 1
    if steady and entries <= MANY_COLUMNS:
        size = tuple(_value(weight).shape[2:])
        with graph.inserting_before(node):
            columns = graph.call_function(
                _columns, (source, size, tuple(dilation), tuple(padding), tuple(stride))
            )
            flat = graph.call_function(aten.reshape.default, (weight, [-1, entries]))
            turned = graph.call_function(aten.t.default, (flat,))
            turned.meta["val"] = _value(weight).reshape(-1, entries).t()
            if bias is None:
                product = graph.call_function(aten.mm.default, (columns, turned))
            else:
                product = graph.call_function(aten.addmm.default, (bias, columns, turned))
            count, channels, height, width = _value(node).shape
            image = graph.call_function(
                aten.reshape.default, (product, [count, height, width, channels])
            )
            image = graph.call_function(aten.permute.default, (image, [0, 3, 1, 2]))
        product.meta["val"] = _value(node).permute(0, 2, 3, 1).reshape(-1, channels)
        image.meta["val"] = _value(node)
        node.replace_all_uses_with(image)
        return
    with graph.inserting_before(node):
        laid = graph.call_function(_channels_last, (weight,))
    laid.meta["val"] = _value(weight)
    node.args = (source, laid, *node.args[2:])


def _columns(
    images: Tensor,
    size: tuple[int, int],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    stride: tuple[int, ...],
) -> Tensor:
    """The patch under every place of a kernel, shape (B · places, entries)."""
    patches = F.unfold(images, size, dilation, padding, stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _in_place(graph: fx.Graph, kinds: dict[fx.Node, Kind]) -> None:
    """ReLU and sums are written over an operand that nothing else needs."""
    node: Any
    for node in graph.nodes:
        if node.target is aten.relu.default and _owned(node.args[0]):
            node.target = aten.relu_.default
        elif node.target is aten.add.Tensor and len(node.args) == 2 and not node.kwargs:
            first, second = node.args
            if first is second or not all(isinstance(n, fx.Node) for n in node.args):
                continue
            if not _owned(first) or kinds[first] != kinds[node]:
                first, second = second, first
            if (
                not _owned(first) or kinds[first] != kinds[node]
            ):  # a value that is used again must not change
                continue
            if _shape(first) == _shape(second) == _shape(node):
                node.target, node.args = aten.add_.Tensor, (first, second)


def _owned(node: Any) -> bool:
    """Whether memory is read by one operation alone, and was made for it."""
    while node.target in VIEWS and len(node.users) == 1:
        node = node.args[0]
    if node.target is operator.getitem and len(node.users) == 1:
        return node.args[1] == 0 and node.args[0].target in (*NORMS, aten.native_layer_norm.default)
    return len(node.users) == 1 and node.target in FRESH


def _shape(node: fx.Node) -> tuple[object, object]:
    value = node.meta.get("val")
    return getattr(value, "shape", None), getattr(value, "dtype", None)


def _value(node: object) -> Tensor:
    """The fake tensor that a node had in the trace."""
    assert isinstance(node, fx.Node)
    return node.meta["val"]
