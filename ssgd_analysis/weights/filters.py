"""Which entries of a weight feed one output unit, and which are constants: one table for all."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Filters:
    """How a weight divides into filters, and which of its rows is a constant.

    A filter is what feeds one output unit of a layer: multiplied by a positive factor, it
    multiplies that unit alone.

    Args:
        axis: of the output units.
        groups: equal parts of the first axis with output units of their own: of a transposed
            convolution, whose weight has shape (in, out / groups, …). Unit o belongs to part
            o // (out / groups).
        constant: the row that gets no gradient, as ``padding_idx`` of an embedding; or ``None``.
    """

    axis: int = 0
    groups: int = 1
    constant: int | None = None

    def rows(self, tensor: Tensor) -> Tensor:
        """One filter a row, shape (filters, entries of one); a view where memory allows it."""
        parts = self._parts(tensor).movedim(self.axis + 1, 1)
        return parts.reshape(math.prod(parts.shape[:2]), math.prod(parts.shape[2:]))

    def weight(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor of some shape whose :meth:`rows` these are."""
        parts = [self.groups, shape[0] // self.groups, *shape[1:]]
        parts.insert(1, parts.pop(self.axis + 1))
        return rows.reshape(parts).movedim(1, self.axis + 1).reshape(tuple(shape))

    def reduced(self, tensor: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
        """A reduction of each filter, as ``torch.sum``, shaped to multiply the tensor.

        Args:
            tensor: of two axes or more.
            reduce: takes ``dim``, a list of axes, and ``keepdim``.
        """
        if self.groups == 1:
            axes = [axis for axis in range(tensor.ndim) if axis != self.axis]
            return reduce(tensor, dim=axes, keepdim=True)
        parts = self._parts(tensor)
        axes = [axis for axis in range(1, parts.ndim) if axis != self.axis + 1]
        return self._shaped(reduce(parts, dim=axes, keepdim=True), tensor)

    def spread(self, values: Tensor, tensor: Tensor) -> Tensor:
        """One value for each output unit, shaped to multiply the tensor."""
        shape = [1] * (tensor.ndim + 1)
        shape[0], shape[self.axis + 1] = self.groups, len(values) // self.groups
        return self._shaped(values.reshape(shape), tensor)

    def count(self, shape: Sequence[int]) -> int:
        """How many filters a weight of some shape has, those of constants not among them."""
        return self.groups * shape[self.axis] - (self.constant is not None and not self.axis)

    def entries(self, shape: Sequence[int]) -> int:
        """How many entries of a weight of some shape are no constants."""
        constants = 0 if self.constant is None else math.prod(shape[1:])
        return math.prod(shape) - constants

    def still(self, move: Tensor) -> Tensor:
        """A move, changed in place so that the constants stay."""
        if self.constant is not None:
            move[self.constant] = 0
        return move

    def moving(self, tensor: Tensor) -> Tensor:
        """The tensor with zeros for constants; itself where there are none."""
        return tensor if self.constant is None else self.still(tensor.clone())

    def _parts(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (self.groups, tensor.shape[0] // self.groups))

    def _shaped(self, parts: Tensor, tensor: Tensor) -> Tensor:
        whole = parts.flatten(0, 1)
        if self.groups == 1:
            return whole
        return whole.repeat_interleave(tensor.shape[0] // self.groups, dim=0)


PLAIN = Filters()


def filters_of(model: nn.Module | None, parameters: Iterable[Tensor]) -> list[Filters]:
    """How each parameter divides into filters, from the modules that hold it.

    Output units lie along axis 0, but along axis 1 in the weights of transposed convolutions,
    embeddings (an output unit is a feature, a row a token's input weights) and Hugging Face's
    ``Conv1D``. ``weight_norm``'s two parameters divide along its own ``dim``: only so does a
    factor on a slice of v change nothing. Tensors of unknown modules, and of no
    model, have axis 0, as the published codes do for all. A weight that several modules share has
    axis 0 if it has it in one of them, as none of its units can be rescaled alone; and its
    padding row is a constant only if it is the padding row of all of them.

    Args:
        model: that holds them; or ``None``.
        parameters: any of the model's, or others.

    Returns:
        One record for each of ``parameters``.
    """
    uses: dict[Tensor, list[Filters]] = {}
    for parameter, filters in () if model is None else _uses(model):
        uses.setdefault(parameter, []).append(filters)
    return [_shared(uses.get(parameter, [PLAIN])) for parameter in parameters]


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is Hugging Face's ``Conv1D``: a linear layer whose weight is (in, out)."""
    kinds = {kind.__name__ for kind in type(module).__mro__}
    return "Conv1D" in kinds and isinstance(getattr(module, "nf", None), int)


def _uses(model: nn.Module) -> Iterator[tuple[Tensor, Filters]]:
    """Each parameter with its filters, once for each module that holds it."""
    for module in model.modules():
        if isinstance(module, ParametrizationList):
            continue  # its owner's turn
        normed = {
            hook.name: hook.dim
            for hook in module._forward_pre_hooks.values()
            if isinstance(hook, WeightNorm)
        }
        for name, parameter in module.named_parameters(recurse=False):
            whole = name.removesuffix("_g").removesuffix("_v")
            if whole in normed:
                yield parameter, _normed(module, whole, parameter, normed[whole])
            elif name.endswith("_orig"):  # spectral_norm, pruning
                yield parameter, _original(module, name.removesuffix("_orig"), parameter)
            else:
                yield parameter, _own(module, name)
        lists: Any = module.parametrizations if is_parametrized(module) else {}
        for name, held in lists.items():
            for parameter in held.parameters(recurse=False):
                if isinstance(held[0], _WeightNorm):
                    yield parameter, _normed(module, name, parameter, held[0].dim)
                else:
                    yield parameter, _original(module, name, parameter)


def _own(module: nn.Module, name: str) -> Filters:
    """The table: filters of a module's tensor of some name."""
    if name != "weight":
        return PLAIN
    if isinstance(module, _ConvTransposeNd):
        return Filters(axis=1, groups=module.groups)
    if isinstance(module, EMBEDDINGS):
        row = module.padding_idx
        return Filters(axis=1, constant=None if row is None else row % module.num_embeddings)
    return Filters(axis=1) if is_conv1d(module) else PLAIN


def _original(module: nn.Module, name: str, parameter: Tensor) -> Filters:
    """Of what a tensor is computed from: as the tensor; but all of it may get gradients."""
    own = replace(_own(module, name), constant=None)
    return own if parameter.ndim > own.axis else PLAIN


def _normed(module: nn.Module, name: str, parameter: Tensor, dim: int) -> Filters:
    """Of g or v of weight_norm along ``dim``; −1: one norm of the whole tensor."""
    if dim == -1 or not parameter.ndim:
        return _original(module, name, parameter)
    axis = dim % parameter.ndim
    return Filters(axis=axis, constant=None if axis else _own(module, name).constant)


def _shared(uses: Sequence[Filters]) -> Filters:
    first = min(uses, key=lambda filters: filters.axis)
    same = all(filters.constant == first.constant for filters in uses)
    return first if same else replace(first, constant=None)
