"""Batches that stay where they come from and are read anew at every pass."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis import random_state
from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError

Digest = tuple[int, int]  # of examples in whatever order, and in their order
MULTIPLIERS = (0x5851F42D4C957F2D, 0x14057B7EF767814F, 0x2545F4914F6CDD1D)  # odd, of 63 bits
WRAP = 2**64


def read(batches: Iterable[Batch], seed: int) -> Iterator[Batch]:
    """The batches of one pass, with global random generators of their own.

    So a loader that shuffles by them gives the same order at every pass with the same seed, and
    what happens between two batches draws the numbers that it would draw without it.

    Args:
        batches: a loader, or anything else that can be iterated.
        seed: of the pass.
    """
    own: dict[str, Any] | None = None
    left = None
    while True:
        outside = random_state.capture()
        try:
            if own is None or left is None:
                random_state.set_seed(seed)
                left = iter(batches)
            else:
                random_state.restore(own)
            try:
                batch = next(left)
            except StopIteration:
                return
            own = random_state.capture()
        finally:
            random_state.restore(outside)
        yield batch


@torch.no_grad()
def digest(batch: Batch) -> Digest:
    """Two numbers that tell batches apart: without and with regard to the examples' order.

    Examples are rows of all tensors that have one entry for each of them. The first number is a
    sum over examples, so it adds up over batches to one of the whole set.
    """
    given = [tensor.detach() for tensor in batching.tensors(batch)]
    lengths = [len(tensor) for tensor in given if tensor.ndim]
    count = batching.examples(batch) if lengths else 1
    rows = torch.zeros(count, dtype=torch.int64)
    for tensor in given:
        own = tensor.ndim and len(tensor) == count
        rows = _mixed(rows * MULTIPLIERS[2] + _row_sums(tensor if own else tensor[None]))
    places = _mixed(torch.arange(1, count + 1) * MULTIPLIERS[0]) | 1
    return int(rows.sum()) % WRAP, int(_mixed(rows * places).sum()) % WRAP


def _row_sums(tensor: Tensor) -> Tensor:
    """A weighted sum of each row's bytes, shape (rows,), int64; overflow wraps around."""
    flat = tensor.cpu().contiguous().reshape(len(tensor), -1)
    if flat.dtype == torch.bool or not flat.numel():
        flat = flat.to(torch.uint8)
    words = flat.view(torch.uint8) if flat.element_size() < 4 else flat.view(torch.int32)
    words = words.to(torch.int64)
    weights = _mixed(torch.arange(1, words.shape[1] + 1) * MULTIPLIERS[1]) | 1
    return _mixed((words * weights).sum(dim=1) + words.shape[1])


def _mixed(numbers: Tensor) -> Tensor:
    """Every bit of a number spread over all of its bits."""
    for factor in MULTIPLIERS:
        numbers = (numbers ^ (numbers >> 29)) * factor
    return numbers ^ (numbers >> 32)


class Stream(Sequence[Batch]):
    """The batches of a loader as a sequence that holds none of them.

    Every pass reads them anew, and compares each with what the first pass found. Going through
    the indices in order is one pass; going back begins another one.

    Args:
        name: of the data, for errors.
        source: gives the batches of one pass, by the seed of the pass.
        counts: examples of each batch.
        digests: of each batch, by :func:`digest`.
        chosen: the batches that belong to the sequence, ascending; default all.
        last: examples of the last of them that do; default all.
        move: the device and dtype of :func:`ssgd_analysis.batch.to`.

    Raises:
        InputError: while reading: a batch is not the one of the first pass.
    """

    def __init__(
        self,
        name: str,
        source: Callable[[int], Iterator[Batch]],
        counts: Sequence[int],
        digests: Sequence[Digest],
        *,
        chosen: Sequence[int] | None = None,
        last: int | None = None,
        move: tuple[torch.device | str, torch.dtype | None] = ("cpu", None),
    ) -> None:
        self.name, self.source, self.digests = name, source, list(digests)
        self._counts, self._last, self._move = list(counts), last, move
        self.chosen = list(range(len(counts)) if chosen is None else chosen)
        self._pass: Iterator[Batch] = iter(())
        self._next = 0  # the index that the open pass gives next

    @property
    def counts(self) -> list[int]:
        """Examples of each batch."""
        counts = [self._counts[index] for index in self.chosen]
        return counts if self._last is None else [*counts[:-1], self._last]

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this sequence from others: its batches' digests."""
        return (*(self.digests[index] for index in self.chosen), self._last)

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Batch]:
        """One pass."""
        places = {index: place for place, index in enumerate(self.chosen)}
        left = self.source(0)
        for index in range(self.chosen[-1] + 1 if self.chosen else 0):
            batch = next(left, None)
            if batch is None or digest(batch) != self.digests[index]:
                raise InputError(
                    f"{self.name}: the loader gives another batch {index + 1} than at the first"
                    " pass: with --stream every pass must give the same (no shuffling by a"
                    " generator of its own, no random augmentation)"
                )
            if index not in places:
                continue
            if self._last is not None and places[index] == len(self.chosen) - 1:
                batch = batching.between(batch, 0, self._last, self._counts[index])
            yield batching.to(batch, *self._move)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        """One batch, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        if place < self._next:
            self._next, self._pass = 0, iter(())
        if self._next == 0:
            self._pass = iter(self)
        while True:
            batch = next(self._pass)
            self._next += 1
            if self._next > place:
                return batch

    def epoch(self, seed: int) -> Iterator[Batch]:
        """The batches of a pass of its own, in the loader's order for this seed."""
        return (batching.to(batch, *self._move) for batch in self.source(seed))

    def only(self, places: Sequence[int]) -> "Stream":
        """Some of its batches, by ascending index."""
        whole = bool(places) and places[-1] == len(self) - 1
        return self._like(
            chosen=[self.chosen[place] for place in places], last=self._last if whole else None
        )

    def first(self, examples: int) -> "Stream":
        """The batches of the first examples, the last one cut."""
        left, chosen = examples, []
        for index, count in zip(self.chosen, self.counts, strict=True):
            if left <= 0:
                break
            chosen.append(index)
            last, left = min(count, left), left - count
        return self._like(chosen=chosen, last=last)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Stream":
        """Its batches are moved when they are read."""
        return self._like(move=(device, dtype or self._move[1]))

    def _like(self, **changes: Any) -> "Stream":
        same: dict[str, Any] = {"chosen": self.chosen, "last": self._last, "move": self._move}
        return Stream(self.name, self.source, self._counts, self.digests, **{**same, **changes})


class Uncut(Sequence[list[tuple[Batch, float]]]):
    """Each batch of a stream as its only piece, whose share of it is 1."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    @overload
    def __getitem__(self, index: int) -> list[tuple[Batch, float]]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[tuple[Batch, float]]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """The piece of one batch, or those of a slice."""
        if isinstance(index, slice):
            return [[(batch, 1.0)] for batch in self.stream[index]]
        return [(self.stream[index], 1.0)]
