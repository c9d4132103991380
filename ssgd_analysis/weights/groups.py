"""Filters and layers: the groups of weights that share one scale."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.weights.filters import PLAIN, Filters

SCOPES = ("filter", "layer")
AnyTensor = TypeVar("AnyTensor", bound=Tensor)


def grouped(tensor: Tensor, scope: str, filters: Filters = PLAIN) -> Tensor:
    """A parameter's groups, one a row.

    A filter is what feeds one output unit: an output channel of a convolution, a row of a linear
    layer (Li et al. 2018, section 4); of other layers see :func:`filters_of`. A vector (bias,
    normalisation) is one group, as its entries have no fan-in.

    Args:
        tensor: a parameter, any shape.
        scope: ``"filter"`` or ``"layer"``.
        filters: how it divides into filters.

    Returns:
        Shape (groups, entries of a group); a view where the memory allows it.
    """
    if scope == "filter" and tensor.ndim >= 2:
        return filters.rows(tensor)
    return tensor.reshape(1, -1)


def ungrouped(rows: Tensor, shape: Sequence[int], scope: str, filters: Filters = PLAIN) -> Tensor:
    """The parameter of some shape that :func:`grouped` makes these rows of."""
    if scope == "filter" and len(shape) >= 2:
        return filters.weight(rows, shape)
    return rows.reshape(tuple(shape))


def rms(tensor: Tensor, scope: str, filters: Filters = PLAIN) -> Tensor:
    """Root mean square of each group, shaped to multiply the tensor it came from.

    Returns:
        Of vectors and for layers shape (1, …, 1); for filters (filters, 1, …, 1), or as the axis
        of the output units asks.
    """
    norms, count = group_norms(tensor, scope, filters)
    return norms / count**0.5


def group_norms(tensor: Tensor, scope: str, filters: Filters = PLAIN) -> tuple[Tensor, float]:
    """L2 norm of each group, shaped to multiply the tensor, and :func:`group_size`."""
    moving = filters.moving(tensor)
    if scope == "filter" and tensor.ndim >= 2:
        norms = filters.reduced(moving, torch.linalg.vector_norm)
    else:
        norms = torch.linalg.vector_norm(moving, dim=list(range(tensor.ndim)), keepdim=True)
    return norms, group_size(tensor.shape, scope, filters)


@functools.cache  # asked for at every training step
def group_size(shape: torch.Size, scope: str, filters: Filters = PLAIN) -> float:
    """How many entries a group has, those that are constants not among them; at least one."""
    groups = filters.count(shape) if scope == "filter" and len(shape) >= 2 else 1
    return max(filters.entries(shape) / max(groups, 1), 1.0)


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Several tensors, one for each parameter, as one vector of shape (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """L2 norm over all entries of several tensors; a scalar tensor."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


def matching(parameters: dict[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    """The parameters whose name, or the name of a module that holds them, fits a pattern.

    Raises:
        InputError: there are none.
    """
    if not parameters:
        raise InputError("the model has no parameters that require gradients")

    def fits(name: str, pattern: str) -> bool:
        parts = name.split(".")
        return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))

    for pattern in patterns:
        if not any(fits(name, pattern) for name in parameters):
            raise InputError(
                f"no parameter matches --layers '{pattern}': there are {', '.join(parameters)}"
            )
    return {
        n: p for n, p in parameters.items() if not patterns or any(fits(n, q) for q in patterns)
    }


def included(
    parameters: Mapping[str, AnyTensor], exclude: str, model: nn.Module | None = None
) -> dict[str, AnyTensor]:
    """The parameters that get noise: all but the excluded ones.

    Args:
        parameters: by name.
        exclude: ``none``, or the parameters to leave out, separated by commas: ``1d``, those of
            fewer than two dimensions (biases, normalisation); ``type:CLASS``, all inside modules
            of a class of that name or of a subclass; anything else, a pattern of names
            (``head.*``).
        model: holds the modules; needed for ``type:`` alone.

    Raises:
        InputError: a type or pattern that fits no parameter, a type without the model, or no
            parameter that is left.

    Example:
        >>> list(included(dict(nn.Linear(3, 2).named_parameters()), "1d"))
        ['weight']
    """
    if exclude == "none":
        return dict(parameters)
    left = dict(parameters)
    for part in (part.strip() for part in exclude.split(",")):
        if part.startswith("type:"):
            inside = _inside(part.removeprefix("type:"), model)
            fitting = {name for name, value in parameters.items() if id(value) in inside}
        elif part == "1d":
            fitting = {name for name, value in parameters.items() if value.ndim < 2}
        else:
            fitting = {name for name in parameters if fnmatchcase(name, part)}
        if not fitting and part != "1d":
            raise InputError(
                f"exclude: no parameter fits '{part}': there are {', '.join(parameters)}"
            )
        left = {name: value for name, value in left.items() if name not in fitting}
    if parameters and not left:
        raise InputError(
            f"exclude={exclude} leaves no parameter with noise: exclude less, or exclude=none"
        )
    return left


def _inside(kind: str, model: nn.Module | None) -> set[int]:
    """Identities of the parameters inside modules of a class."""
    if model is None:
        raise InputError(f"exclude: 'type:{kind}' needs the model: SSGD(..., model=model)")
    return {
        id(parameter)
        for module in model.modules()
        if kind in {base.__name__ for base in type(module).__mro__}
        for parameter in module.parameters()
    }
