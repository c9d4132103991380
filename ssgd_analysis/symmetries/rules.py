"""How the axes of an operation's results follow from those of its arguments, for torch's own.

A rule is given the axes of any tensor, the operation's arguments by name, and its results; it
ties axes that must be permuted together, and returns the axes of the first results. Whatever it
does not foresee, it refuses with an exception.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.symmetries.axes import Mismatch, Space, cut, joined, reshaped, unify

Axes = list[Space]
FIXED = "fixed"  # inputs, outputs, constants, kernel positions: nothing to be said about


def pin(axes: Axes, why: str = FIXED) -> None:
    """None of these axes can be permuted."""
    for space in axes:
        space.pin(why)


Given = dict[str, Any]  # an operation's arguments by name
AxesOf = Callable[[Tensor], Axes]
Rule = Callable[[AxesOf, Given, list[Tensor]], list[Axes]]


def pointwise(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    """Aligned at the last axis, an axis of length one fits any."""
    axes = [Space(1) for _ in found[0].shape]
    for tensor in batching.tensors(list(given.values())):
        own = of(tensor)
        for axis, space in zip(range(len(axes) - len(own), len(axes)), own, strict=True):
            if axes[axis].size == 1:
                axes[axis] = space
            elif space.size > 1:
                unify(axes[axis], space)
    return [axes]


def _constant(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    """Only the shape of the argument counts."""
    return []


def _same(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    """What an operation does to an axis, it does whatever the order of the entries."""
    return [of(next(iter(given.values())))]


def _reduced(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = of(next(iter(given.values())))
    dims = given.get("dim")
    dims = range(len(axes)) if dims is None or dims == [] else dims
    gone = {d % len(axes) for d in ([dims] if isinstance(dims, int) else dims)}
    reduced = [Space(1) if k in gone else s for k, s in enumerate(axes)]
    if given.get("keepdim"):
        return [reduced]
    return [[space for k, space in enumerate(reduced) if k not in gone]]


def _product(left: str, right: str, bias: str | None = None) -> Rule:
    """A (batch of) matrix product(s), with something added or not."""

    def rule(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
        one, two = of(given[left]), of(given[right])
        unify(one[-1], two[-2])
        for a, b in zip(one[:-2], two[:-2], strict=True):
            unify(a, b)
        axes = [*one[:-1], two[-1]]
        added = [] if bias is None else of(given[bias])
        for a, b in zip(reversed(axes), reversed(added), strict=False):
            if b.size > 1:
                unify(a, b)
        return [axes]

    return rule


def _linear(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    inputs, (out, into) = of(given["input"]), of(given["weight"])
    unify(inputs[-1], into)
    if given["bias"] is not None:
        unify(out, of(given["bias"])[0])
    return [[*inputs[:-1], out]]


def _convolution(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    inputs, weight = of(given["input"]), of(given["weight"])
    groups = given["groups"]
    first, second = (1, 0) if given["transposed"] else (0, 1)
    if groups == 1:
        into, out = weight[second], weight[first]
        unify(inputs[1], into)
    elif given["transposed"]:
        raise Mismatch
    else:
        group, into = reshaped([inputs[1]], [groups, inputs[1].size // groups])
        own, _ = reshaped([weight[0]], [groups, weight[0].size // groups])
        unify(group, own)
        unify(into, weight[1])
        out = weight[0]
    if given["bias"] is not None:
        unify(out, of(given["bias"])[0])
    pin([*inputs[2:], *weight[2:]])
    return [[inputs[0], out, *[Space(n, FIXED) for n in found[0].shape[2:]]]]


def _batch_norm(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = of(given["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if given.get(name) is not None:
            unify(axes[1], of(given[name])[0])
    return [axes]


def _layer_norm(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = of(given["input"])
    for name in ("weight", "bias"):
        own = [] if given.get(name) is None else of(given[name])
        for a, b in zip(reversed(axes), reversed(own), strict=False):
            unify(a, b)
    return [axes]


def _group_norm(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = of(given["input"])
    reshaped([axes[1]], [given["group"], axes[1].size // given["group"]])  # cuts it into groups
    for name in ("weight", "bias"):
        if given.get(name) is not None:
            unify(axes[1], of(given[name])[0])
    return [axes]


def _spatial(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    """Pooling: neighbours along the last axes, every channel for itself."""
    axes = of(next(iter(given.values())))
    pin(axes[2:])
    rest = [Space(size, FIXED) for size in found[0].shape[2:]]
    return [[*axes[:2], *rest] for _ in found]


def _padded(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    """Padding of channels: the new ones are units of their own."""
    axes, pads = list(of(given["self"])), given["pad"]
    for k in range(len(pads) // 2):
        low, high, axis = pads[2 * k], pads[2 * k + 1], len(axes) - 1 - k
        if min(low, high) < 0:
            raise Mismatch
        parts = [Space(low), axes[axis], Space(high)]
        axes[axis] = joined([part for part in parts if part.size])
    return [axes]


def _view(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    return [reshaped(of(next(iter(given.values()))), found[0].shape)]


def _expand(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    own, shape = of(given["self"]), found[0].shape
    own = [Space(1)] * (len(shape) - len(own)) + own
    return [[s if s.size == n else Space(n, FIXED) for s, n in zip(own, shape, strict=True)]]


def _permuted(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = of(given["self"])
    if "dims" in given:
        order = given["dims"]
    else:
        order = list(range(len(axes)))
        if order:
            one, two = given.get("dim0", 0), given.get("dim1", len(axes) - 1)
            order[one], order[two] = order[two], order[one]
    return [[axes[k] for k in order]]


def _slice(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = list(of(given["self"]))
    axis, size = given["dim"] % len(axes), found[0].shape[given["dim"]]
    if axes[axis].size != size:
        start, step = given["start"] or 0, given["step"]
        start = start + axes[axis].size if start < 0 else start
        if step == 1:
            rest = axes[axis].size - start - size
            sizes = [n for n in (start, size, rest) if n]
            axes[axis] = cut(axes[axis], sizes)[1 if start else 0]
        else:
            axes[axis].pin(FIXED)
            axes[axis] = Space(size, FIXED)
    return [axes]


def _select(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = list(of(given["self"]))
    axes.pop(given["dim"] % len(axes)).pin(FIXED)
    return [axes]


def _rolled(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    axes = of(given["self"])
    pin([axes[dim] for dim in given["dims"]] if given["dims"] else axes)
    return [axes]


def _split(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    """Concatenated channels cut apart; equal pieces of one axis are units of their own."""
    axes = of(given["self"])
    axis = given["dim"] % len(axes)
    pieces = cut(axes[axis], [piece.shape[axis] for piece in found])
    return [[*axes[:axis], piece, *axes[axis + 1 :]] for piece in pieces]


def _cat(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    parts = [of(tensor) for tensor in given["tensors"] if tensor.numel()]  # an empty cache
    axis = given["dim"] % len(parts[0])
    axes = list(parts[0])
    for other in parts[1:]:
        for k, space in enumerate(other):
            if k != axis:
                unify(axes[k], space)
    axes[axis] = joined([part[axis] for part in parts])
    return [axes]


def _embedding(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    rows, units = of(given["weight"])
    rows.pin(FIXED)
    return [[*of(given["indices"]), units]]


def _attention(of: AxesOf, given: Given, found: list[Tensor]) -> list[Axes]:
    query, key, value = (of(given[name]) for name in ("query", "key", "value"))
    unify(query[-1], key[-1])
    for k in range(len(query) - 2):
        unify(query[k], key[k])
        unify(query[k], value[k])
    pin([query[-2], key[-2], value[-2]])
    return [[*query[:-1], value[-1]]]


_CONSTANTS = "new_zeros new_ones new_empty new_full zeros_like ones_like empty_like full_like"
_SAME = (
    "clone alias detach _to_copy contiguous lift_fresh native_dropout dropout softmax _softmax "
    "_log_softmax log_softmax"
)
_REDUCED = "sum mean amax amin var std logsumexp linalg_vector_norm norm prod max min"
_POOLS = (
    "max_pool1d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d "
    "upsample_nearest1d upsample_nearest2d upsample_bilinear2d reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d"
)
_VIEWS = "view _unsafe_view reshape _reshape_copy unsqueeze squeeze"
_NORMS = (
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "cudnn_batch_norm _batch_norm_no_update batch_norm"
)
_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_REDUCED.split(), _reduced),
    **dict.fromkeys(_POOLS.split(), _spatial),
    **dict.fromkeys(_VIEWS.split(), _view),
    **dict.fromkeys(_NORMS.split(), _batch_norm),
    **dict.fromkeys(_ATTENTION.split(), _attention),
    **dict.fromkeys(("permute", "transpose", "t"), _permuted),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2", "self"),
    "baddbmm": _product("batch1", "batch2", "self"),
    "linear": _linear,
    **dict.fromkeys(("copy", "hardswish", "hardsigmoid", "hardtanh"), pointwise),
    "roll": _rolled,
    **dict.fromkeys(_CONSTANTS.split(), _constant),
    "_prelu_kernel": pointwise,
    "convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "constant_pad_nd": _padded,
    "expand": _expand,
    "slice": _slice,
    "select": _select,
    "cat": _cat,
    "embedding": _embedding,
}
