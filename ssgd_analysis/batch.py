"""A batch of examples: ``(inputs, targets)``, or whatever a loss ``(model, batch)`` takes."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError

Batch = Any  # usually (inputs, targets); tensors in tuples, lists, mappings, at any depth


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, tuple | list):
        return [tensor for part in batch for tensor in tensors(part)]
    return []


def examples(batch: Batch) -> int:
    """How many examples a batch holds: the length of its first tensor.

    Raises:
        InputError: it holds no tensor with a batch axis.
    """
    found = [tensor for tensor in tensors(batch) if tensor.ndim]
    if not found:
        raise InputError("a batch holds no tensor with a batch axis: its examples can't be counted")
    return len(found[0])


def mapped(batch: Batch, leaves: list[Tensor]) -> Batch:
    """The same structure with other tensors.

    Args:
        batch: gives the structure; what is not a tensor stays.
        leaves: as many as :func:`tensors` finds, in that order; emptied.
    """
    if isinstance(batch, Tensor):
        return leaves.pop(0)
    if isinstance(batch, Mapping):
        values = {key: mapped(value, leaves) for key, value in batch.items()}
        return type(batch)(values)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*[mapped(part, leaves) for part in batch])
    if isinstance(batch, tuple | list):
        return type(batch)([mapped(part, leaves) for part in batch])
    return batch


def pieces(batch: Batch, size: int) -> list[Batch]:
    """A batch cut along its first axis into pieces of at most ``size`` examples.

    Only tensors as long as the batch are cut; others (a shared mask) go into every piece.
    """
    count = examples(batch)
    if size >= count:
        return [batch]
    whole = tensors(batch)
    cut = [t.split(size) if t.ndim and len(t) == count else None for t in whole]
    return [
        mapped(batch, [w if c is None else c[i] for w, c in zip(whole, cut, strict=True)])
        for i in range((count + size - 1) // size)
    ]


def regrouped(batches: Iterable[Batch], size: int) -> list[list[Batch]]:
    """The examples in order, in groups of ``size``, the last one smaller; batches are not joined.

    Returns:
        The pieces of batches that each group is made of.
    """
    groups: list[list[Batch]] = []
    room = 0
    for batch in batches:
        start, count = 0, examples(batch)
        while start < count:
            if room == 0:
                groups.append([])
                room = size
            taken = min(room, count - start)
            whole = taken == count
            groups[-1].append(batch if whole else between(batch, start, start + taken))
            start, room = start + taken, room - taken
    return groups


def between(batch: Batch, start: int, stop: int) -> Batch:
    """Examples ``start`` to ``stop`` of a batch; tensors of another length stay whole."""
    count = examples(batch)
    parts = [t[start:stop] if t.ndim and len(t) == count else t for t in tensors(batch)]
    return mapped(batch, parts)


def to(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with all its tensors on a device."""
    return mapped(batch, [tensor.to(device) for tensor in tensors(batch)])


def pair(batch: Batch) -> tuple[Tensor, Tensor]:
    """The inputs and targets of a batch.

    Raises:
        InputError: it is no such pair.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise InputError(
        "a batch is no (inputs, targets) pair: give a loss whose parameters are (model, batch)"
    )
