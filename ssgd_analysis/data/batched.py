"""A split in batches: those of a loader, which cannot be joined or are not held in memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.streams import Stream


@dataclass(frozen=True)
class BatchedSplit:
    """Examples in the batches that a loader gave.

    Args:
        name: of the data and the split, for errors.
        given: the batches: a list, or a stream that reads them anew at every pass.
        counts: examples of each.
        like: one batch, cut to its first example where that is possible.
        classes: of pairs with class labels the number of classes.
        alike: whether batches can be joined: all are tensors of one shape but for their length.
    """

    name: str
    given: Sequence[Batch]
    counts: Sequence[int]
    like: Batch
    classes: int | None
    alike: bool

    @property
    def inputs(self) -> Batch:
        """The inputs of :attr:`like`, or all of it where it is no pair."""
        return batching.pair(self.like)[0] if self._pairs else self.like

    @property
    def targets(self) -> Tensor | None:
        """The targets of :attr:`like`, or ``None`` where it is no pair."""
        return batching.pair(self.like)[1] if self._pairs else None

    @property
    def _pairs(self) -> bool:
        pair = isinstance(self.like, tuple) and len(self.like) == 2
        return pair and all(isinstance(side, Tensor) for side in self.like)

    def __len__(self) -> int:
        return sum(self.counts)

    def steps(self, size: int) -> int:
        """Minibatches of ``size`` examples in an epoch."""
        return len(self) // size if self.alike else sum(count // size for count in self.counts)

    def first(self, samples: int | None) -> "BatchedSplit":
        """The first ``samples`` examples (``None``: all).

        Raises:
            InputError: there are not that many.
        """
        if samples is None or samples == len(self):
            return self
        if samples > len(self):
            raise InputError(f"--samples {samples} is more than the {len(self)} examples there are")
        if isinstance(self.given, Stream):
            short = self.given.first(samples)
            return replace(self, given=short, counts=short.counts)
        kept = [p for g in batching.regrouped(self.given, samples, self.counts)[:1] for p in g]
        left, counts = samples, []
        for _, count in zip(kept, self.counts, strict=False):
            counts.append(min(count, left))
            left -= count
        return replace(self, given=kept, counts=counts)

    def take(self, index: Tensor) -> "BatchedSplit":
        """Not possible: examples of batches cannot be chosen one by one.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.name} comes in batches that are not joined in memory, so its examples cannot be"
            " drawn one by one"
        )

    def batches(self, size: int) -> Sequence[Batch]:
        """The batches of the loader, whatever ``size`` is."""
        return self.given

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch of minibatches, all of exactly ``size`` examples; what is left over is dropped.

        A stream shuffles as its loader does, by torch's global generator; batches in memory that
        cannot be joined come in a random order, each cut into minibatches.

        Args:
            size: examples of a minibatch.
            generator: on the CPU; seeds the epoch's order.

        Raises:
            InputError: no batch has so many examples.
        """
        if not self.steps(size):
            raise InputError(f"{self.name}: no batch of the loader has {size} examples")
        seed = int(torch.randint(2**31, (), generator=generator))
        if isinstance(self.given, Stream):
            epoch: Iterable[Batch] = self.given.epoch(seed)
        else:
            order = torch.randperm(len(self.given), generator=generator).tolist()
            epoch = (self.given[index] for index in order)
        return _recut(epoch, size) if self.alike else _cut(epoch, size)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "BatchedSplit":
        """On a device; ``dtype`` applies to floating-point tensors only."""
        if isinstance(self.given, Stream):
            moved: Sequence[Batch] = self.given.to(device, dtype)
        else:
            moved = [batching.to(batch, device, dtype) for batch in self.given]
        return replace(self, given=moved, like=batching.to(self.like, device, dtype))


def _cut(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Each batch in pieces of exactly ``size`` examples."""
    for batch in batches:
        count = batching.examples(batch)
        for start in range(0, count - size + 1, size):
            yield batch if count == size else batching.between(batch, start, start + size, count)


def _recut(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The examples in order, in batches of exactly ``size``."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batching.examples(batch)
        if count < size:
            continue
        whole: Any = held[0] if len(held) == 1 else batching.joined(held)
        pieces = batching.pieces(whole, size, count)
        held = [pieces.pop()] if count % size else []
        yield from pieces
        count %= size
