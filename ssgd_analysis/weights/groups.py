"""Filters and layers: the groups of weights that share one scale."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError

SCOPES = ("filter", "layer")


def grouped(tensor: Tensor, scope: str) -> Tensor:
    """View a parameter as groups, one a row.

    A filter is one slice along the first axis: an output channel of a convolution, a row of a
    linear layer (Li et al. 2018, section 4). A vector (bias, normalisation) is one group, as
    its entries have no fan-in.

    Args:
        tensor: a parameter, any shape.
        scope: ``"filter"`` or ``"layer"``.

    Returns:
        Shape (groups, entries of a group); a view where the memory allows it.
    """
    if scope == "filter" and tensor.ndim >= 2:
        return tensor.reshape(tensor.shape[0], -1)
    return tensor.reshape(1, -1)


def rms(tensor: Tensor, scope: str) -> Tensor:
    """Root mean square of each group, shaped to multiply the tensor it came from.

    Returns:
        Shape (filters, 1, …, 1) for filters, (1, …, 1) otherwise.
    """
    rows = grouped(tensor, scope)
    values = torch.linalg.vector_norm(rows, dim=1) / rows.shape[1] ** 0.5
    return values.reshape(-1, *[1] * (tensor.ndim - 1)) if tensor.ndim else values.reshape(())


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Several tensors, one for each parameter, as one vector of shape (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """L2 norm over all entries of several tensors; a scalar tensor."""
    return torch.stack([tensor.norm() for tensor in tensors]).norm()


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
