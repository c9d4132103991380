"""Which axes of a network's tensors stand for the same units: found by watching one pass.

Each operation of torch that runs tells how the axes of its result follow from those of its
arguments. Where no rule is known here, the units of the arguments stay as they are (pinned), and
so do those of inputs, outputs and constants.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssgd_analysis import batch as batching
from ssgd_analysis.symmetries.axes import Mismatch, Space
from ssgd_analysis.symmetries.rules import FIXED, RULES, Axes, pin, pointwise


class AxisWatch(TorchDispatchMode):
    """While active, gives the axes of every tensor that is computed.

    Args:
        named: parameters and buffers by name; other tensors that are met are constants.
    """

    def __init__(self, named: dict[str, Tensor]) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in named.items()}
        self._axes: dict[int, Axes] = {}
        self._alive: list[Tensor] = []  # so that no id is given out twice
        self.named_axes: dict[str, Axes] = {}

    def axes(self, tensor: Tensor) -> Axes:
        """The axes of a tensor."""
        if id(tensor) not in self._axes:
            name = self._names.get(id(tensor))
            found = [Space(size, FIXED if name is None else None) for size in tensor.shape]
            self._set(tensor, found)
            if name is not None:
                self.named_axes[name] = found
        return self._axes[id(tensor)]

    def _set(self, tensor: Tensor, axes: Axes) -> None:
        self._axes[id(tensor)] = axes
        self._alive.append(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        arguments = func._schema.arguments
        given = {argument.name: argument.default_value for argument in arguments}
        given |= {a.name: value for a, value in zip(arguments, args, strict=False)} | kwargs
        name = func.overloadpacket.__name__
        name = name.removesuffix("_") if func._schema.is_mutable else name
        tensors = batching.tensors(list(given.values()))
        before = [self.axes(tensor) for tensor in tensors]  # in place: shapes may change
        outputs = func(*args, **kwargs)
        found = batching.tensors(outputs)
        rule = RULES.get(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = pointwise
        try:
            if rule is None:
                raise Mismatch
            results = rule(self.axes, given, found)
            if [space.size for axes in results for space in axes] != [
                size for tensor in found[: len(results)] for size in tensor.shape
            ]:
                raise Mismatch
            why = FIXED
        except Exception:  # whatever a rule does not foresee is left alone
            results = []
            hidden = any(s.why != FIXED for axes in before for space in axes for s in space.leaves)
            why = name if hidden else FIXED
            if found or name == "_local_scalar_dense":
                for axes in before:
                    pin(axes, name)
        for tensor, axes in zip(found, results, strict=False):
            self._set(tensor, axes)
        for tensor in found[len(results) :]:
            self._set(tensor, [Space(size, why) for size in tensor.shape])
        return outputs
