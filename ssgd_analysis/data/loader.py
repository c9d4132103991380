"""A split from a loader of batches: read once into memory, or left where it is as a stream."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis import streams
from ssgd_analysis.batch import Batch, Count
from ssgd_analysis.data.batched import BatchedSplit
from ssgd_analysis.data.dataset import Split
from ssgd_analysis.devices import free_bytes
from ssgd_analysis.errors import InputError
from ssgd_analysis.streams import Stream

HELD = 0.5  # of the free memory: joining batches takes as much again

log = logging.getLogger(__name__)


@dataclass
class _Found:
    """What one pass over the batches finds."""

    counts: list[int] = field(default_factory=list)
    digests: list[streams.Digest] = field(default_factory=list)
    layouts: list[Any] = field(default_factory=list)
    held: list[Batch] = field(default_factory=list)
    like: Batch = None
    classes: int | None = 0  # None: not all are pairs with class labels


def split_of_batches(
    name: str,
    given: Iterable[Any],
    prepared: Callable[[Any], Batch],
    *,
    stream: bool,
    count: Count | None = None,
) -> Split | BatchedSplit:
    """The split that a loader's batches make.

    Args:
        name: of data and split, for errors.
        given: the batches; read at least once.
        prepared: makes the package's types out of a batch.
        stream: leave the batches where they come from, instead of holding them in memory.
        count: the examples of a batch.

    Raises:
        InputError: no batches, batches that differ between two passes in more than their
            examples' order, more than fits into memory, or a stream that can be read only once.
    """
    once = isinstance(given, Iterator)
    if once and stream:
        raise InputError(
            f"a {type(given).__name__} can be read only once, and --stream reads it at every pass:"
            " return a DataLoader, or an object whose __iter__ begins anew"
        )

    def source(seed: int) -> Iterator[Batch]:
        return map(prepared, streams.read(given, seed))

    found = _read(source(0), stream, count)
    if once:
        log.warning("%s: a %s is read once, into memory", name, type(given).__name__)
    else:
        _check_passes(name, source, found, stream)
    alike = found.layouts[0] is not None and all(x == found.layouts[0] for x in found.layouts)
    if alike and not stream:
        whole = batching.joined(found.held)
        pair = found.classes is not None or _is_pair(whole)
        return Split(*whole) if pair else Split(whole)
    return BatchedSplit(
        name=name,
        given=Stream(name, source, found.counts, found.digests) if stream else found.held,
        counts=found.counts,
        like=found.like,
        classes=found.classes,
        alike=alike,
    )


def _is_pair(batch: Batch) -> bool:
    pair = type(batch) is tuple and len(batch) == 2
    return pair and all(isinstance(side, Tensor) for side in batch)


def _read(batches: Iterable[Batch], stream: bool, count: Count | None) -> _Found:
    """Make the first pass.

    Raises:
        InputError: no batches, an empty one, or more than may be held.
    """
    found, size, room = _Found(), 0, HELD * free_bytes(torch.device("cpu"))
    for batch in batches:
        examples = batching.counted(batch, count)
        if not examples:
            raise InputError("the data is empty: a batch holds no examples")
        found.counts.append(examples)
        found.digests.append(streams.digest(batch))
        found.layouts.append(batching.layout(batch))
        found.classes = _classes(batch, found.classes)
        if not found.held:
            like = found.layouts[0] is not None
            found.like = batching.between(batch, 0, 1, examples) if like else batch
        if stream:
            continue
        found.held.append(batch)
        size += sum(tensor.nbytes for tensor in batching.tensors(batch))
        if size > room:
            raise InputError(
                f"after {len(found.held)} batches it takes more than {room / 2**30:.1f} GiB, half"
                " of the free memory: add --stream, which reads it from the loader at every pass"
            )
    if not found.counts:
        raise InputError("the data is empty: the loader gives no batches")
    return found


def _classes(batch: Batch, so_far: int | None) -> int | None:
    """The number of classes, with a batch's labels; ``None`` where it has none."""
    if so_far is None or not _is_pair(batch) or batch[1].is_floating_point():
        return None
    return max(so_far, int(batch[1].max()) + 1)


def _check_passes(
    name: str, source: Callable[[int], Iterator[Batch]], found: _Found, stream: bool
) -> None:
    """Compare a second pass with the first.

    A stream compares every batch of every later pass, so its first batch is enough here.

    Raises:
        InputError: the passes differ in more than the order of their examples; or in that, and
            not by torch's global generator.
    """
    if stream and _first(source(1)) == found.digests[0]:
        return
    second = [streams.digest(batch) for batch in source(1)]
    if second == found.digests:
        return
    if (sum(whole for whole, _ in second) - sum(w for w, _ in found.digests)) % streams.WRAP:
        raise InputError(
            "the loader gives other examples at every pass (random augmentation, drop_last with"
            " shuffling, padding to the longest of a batch): return one that gives the same ones"
        )
    if stream and _first(source(0)) != found.digests[0]:
        raise InputError(
            "the loader shuffles by a generator of its own, so no two passes have the same batches:"
            " leave out generator= or shuffle="
        )
    log.warning("%s: the loader shuffles; the order of its examples is fixed for measuring", name)


def _first(batches: Iterator[Batch]) -> streams.Digest | None:
    """The digest of the first batch."""
    batch = next(batches, None)
    return None if batch is None else streams.digest(batch)
