"""A batch of examples: ``(inputs, targets)``, or whatever a loss ``(model, batch)`` takes."""

import copy
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ssgd_analysis.errors import InputError, first_line

Batch = Any  # usually (inputs, targets); tensors in tuples, lists, mappings, at any depth
Count = Callable[[Batch], int]  # how many examples a batch holds
TARGETS = ("labels", "label", "targets", "target", "y")  # names that targets go by


def _fields(batch: Batch) -> list[Any] | None:
    """The parts of a structure, in its order; ``None`` for anything else."""
    if isinstance(batch, Mapping):
        return list(batch.values())
    if isinstance(batch, tuple | list):
        return list(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return None


def is_structure(batch: Batch) -> bool:
    """Whether it is made of parts: a mapping, sequence or dataclass."""
    return _fields(batch) is not None


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        return [batch]
    return [tensor for part in _fields(batch) or [] for tensor in tensors(part)]


def examples(batch: Batch) -> int:
    """How many examples a batch holds, where it does not say: see :func:`assumed_examples`.

    Raises:
        InputError: it holds no tensor with a batch axis.
    """
    return assumed_examples(batch)[0]


def counted(batch: Batch, count: Count | None) -> int:
    """How many examples a batch holds, by a user's function if there is one.

    Raises:
        InputError: the function raises, or returns no number of examples.
    """
    if count is None:
        return examples(batch)
    try:
        found = count(batch)
        whole = int(found)
    except Exception as error:  # a user's function may raise anything
        raise InputError(f"count= failed on a batch: {first_line(error)}") from error
    if whole != found or whole < 0:
        raise InputError(f"count= should return a number of examples, not {found!r}")
    return whole


def assumed_examples(batch: Batch) -> tuple[int, str]:
    """How many examples a batch holds, and on what assumption if its tensors disagree.

    Targets count examples: the second of a pair, or the entry of a mapping that is called
    ``labels``, ``targets``, ``y`` or the like. Without them it is the length that most tensors
    have, the shortest such one, whatever their order.

    Returns:
        The count, and the assumption in words: empty where all tensors have that length.

    Raises:
        InputError: it holds no tensor with a batch axis.
    """
    lengths = [len(tensor) for tensor in tensors(batch) if tensor.ndim]
    if not lengths:
        raise InputError(
            "a batch holds no tensor with a batch axis, so its examples can't be counted: give a"
            " function of the batch that counts them (count=, --count)"
        )
    found = _length_of_targets(batch)
    if found is None:
        counted = Counter(lengths)
        most = max(counted.values())
        found = min(n for n, times in counted.items() if times == most), "the commonest length"
    count, which = found
    if set(lengths) == {count}:
        return count, ""
    return count, (
        f"a batch's tensors have lengths {', '.join(map(str, sorted(set(lengths))))}: {count}"
        f" examples are assumed, {which}; count=, --count says otherwise"
    )


def _length_of_targets(batch: Batch) -> tuple[int, str] | None:
    if isinstance(batch, Mapping):
        for name in TARGETS:
            given = batch.get(name)
            if isinstance(given, Tensor) and given.ndim:
                return len(given), f"the length of '{name}'"
    if isinstance(batch, tuple | list) and len(batch) == 2:
        targets = batch[1]
        if isinstance(targets, Tensor) and targets.ndim:
            return len(targets), "the length of the targets"
        if isinstance(targets, list) and isinstance(batch[0], list):
            return len(targets), "the length of the targets"
    return None


def mapped(batch: Batch, leaves: list[Tensor]) -> Batch:
    """The same structure with other tensors.

    Args:
        batch: gives the structure; what is not a tensor stays.
        leaves: as many as :func:`tensors` finds, in that order; emptied.
    """
    if isinstance(batch, Tensor):
        return leaves.pop(0)
    return rebuilt(batch, lambda part: mapped(part, leaves))


def rebuilt(batch: Batch, change: Callable[[Batch], Batch]) -> Batch:
    """A structure of the same kind with each part changed; anything else is returned unchanged."""
    changed: Any
    if isinstance(batch, dict):
        changed = copy.copy(batch)  # of its own kind: a defaultdict keeps its factory
        changed.update({key: change(value) for key, value in batch.items()})
        return changed
    if isinstance(batch, Mapping):
        return type(batch)({k: change(v) for k, v in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(change, batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map(change, batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        changed = copy.copy(batch)
        for field in dataclasses.fields(batch):
            object.__setattr__(changed, field.name, change(getattr(batch, field.name)))
        return changed
    return batch


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one structure as one, their tensors joined along the first axis."""
    columns = zip(*map(tensors, batches), strict=True)
    return mapped(batches[0], [torch.cat(column) for column in columns])


def layout(batch: Batch) -> Any:
    """What batches that can be joined have in common: structure, types, shapes but for the length.

    ``None`` of a batch that cannot be joined with any: parts that are no tensors, or that do not
    have one entry for each example.
    """
    leaves = _leaves(batch)
    if not leaves or not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves):
        return None
    if len({len(leaf) for leaf in leaves}) > 1:
        return None
    return structure(batch), [(leaf.dtype, leaf.shape[1:]) for leaf in leaves]


def _leaves(batch: Batch) -> list[Any]:
    """All parts that are no structures, in order."""
    parts = None if isinstance(batch, PackedSequence) else _fields(batch)
    return [batch] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def structure(batch: Batch) -> Any:
    """What two batches of one structure have in common: names, kinds, numbers of parts."""
    parts = _fields(batch)
    names = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
    return parts and (names, [structure(part) for part in parts])


def pieces(batch: Batch, size: int, count: int | None = None) -> list[Batch]:
    """A batch cut along its first axis into pieces of at most ``size`` examples.

    Only tensors as long as the batch are cut; others (a shared mask) go into every piece. That a
    piece is a batch in its own right is the caller's to check.

    Args:
        batch: tensors in any structure.
        size: examples of a piece.
        count: examples of the batch; default :func:`examples`.
    """
    count = examples(batch) if count is None else count
    if size >= count:
        return [batch]
    starts = range(0, count, size)
    return [between(batch, start, min(start + size, count), count) for start in starts]


def regrouped(
    batches: Iterable[Batch], size: int, counts: Iterable[int] | None = None
) -> list[list[Batch]]:
    """The examples in order, in groups of ``size``, the last one smaller; batches are not joined.

    Args:
        batches: what to group.
        size: examples of a group.
        counts: examples of each batch; default :func:`examples`.

    Returns:
        The pieces of batches that each group is made of.
    """
    batches = list(batches)
    groups: list[list[Batch]] = []
    room = 0
    for batch, count in zip(batches, counts or map(examples, batches), strict=True):
        start = 0
        while start < count:
            if room == 0:
                groups.append([])
                room = size
            taken = min(room, count - start)
            whole = taken == count
            groups[-1].append(batch if whole else between(batch, start, start + taken, count))
            start, room = start + taken, room - taken
    return groups


def between(batch: Batch, start: int, stop: int, count: int | None = None) -> Batch:
    """Examples ``start`` to ``stop`` of a batch; tensors of another length stay whole."""
    count = examples(batch) if count is None else count
    parts = [t[start:stop] if t.ndim and len(t) == count else t for t in tensors(batch)]
    return mapped(batch, parts)


def divided(batch: Batch, sizes: Sequence[int], count: int) -> list[Batch]:
    """A batch of ``count`` examples in parts of these sizes, in order.

    Raises:
        InputError: none of its tensors has one entry for each example.
    """
    if all(tensor.ndim == 0 or len(tensor) != count for tensor in tensors(batch)):
        raise InputError(
            f"a minibatch of {count} examples cannot be divided, as this method, --accumulate or"
            " several processes need: none of its tensors has one entry for each example"
        )
    stops = itertools.accumulate(sizes)
    return [between(batch, e - size, e, count) for size, e in zip(sizes, stops, strict=True)]


def channels_last(batch: Batch) -> Batch:
    """The batch with its tensors of four axes, (B, C, H, W), in that memory format."""
    layout = torch.channels_last
    given = tensors(batch)
    moved = [t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in given]
    return mapped(batch, moved)


def to(batch: Batch, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
    """The batch with all its tensors on a device; ``dtype`` applies to floats only.

    An object that is not a structure of tensors but has a method ``to`` (a graph library's batch)
    moves by that method.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else None)
    if isinstance(batch, PackedSequence):  # its lengths stay on the CPU
        data = to(batch.data, device, dtype)
        packed: Any = PackedSequence(data, *batch[1:])
        return packed.to(device)
    if _fields(batch) is not None:
        return rebuilt(batch, lambda part: to(part, device, dtype))
    return batch.to(device) if hasattr(batch, "to") else batch


def pair(batch: Batch) -> tuple[Tensor, Tensor]:
    """The inputs and targets of a batch.

    Raises:
        InputError: it is not such a pair.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise InputError(
        "a batch is not a pair (inputs, targets): give a loss whose parameters are (model, batch)"
    )
