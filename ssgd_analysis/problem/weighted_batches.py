"""Batches of examples, and what each of them counts in the mean loss of all."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.devices import plain_python
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem.batch_loss import BatchLoss, BatchReading
from ssgd_analysis.problem.loss_terms import LossTerms
from ssgd_analysis.streams import Stream
from ssgd_analysis.weights.untouched import refuse_renormalised, unchanged


class WeightedBatches(BatchLoss):
    """A model and a loss over fixed batches; the mean of all weighs each batch by its share."""

    def _use(self, batches: Iterable[Batch]) -> None:
        self._given: Sequence[Batch] = (
            batches.to(self.device)
            if isinstance(batches, Stream)
            else [batching.to(batch, self.device) for batch in batches]
        )
        self.counts = (
            batches.counts
            if isinstance(batches, Stream)
            else [self.examples(batch) for batch in self._given]
        )
        if not self._given or min(self.counts) == 0:
            raise InputError(
                "the data is empty: there are no batches, or a batch holds no examples"
            )

    @functools.cached_property
    def readings(self) -> list[BatchReading]:
        """What each batch weighs, by one pass over all of them; made once.

        Raises:
            InputError: as :meth:`check`, or a model that changes its parameters in a pass.
        """
        refuse_renormalised(self.model)
        with self.evaluating(), torch.no_grad(), plain_python(), unchanged(self.model):
            found = [self.read(b, n) for b, n in zip(self._given, self.counts, strict=True)]
        if not all(reading.exact for reading in found):  # then all weigh by their examples
            found = [replace(r, weight=r.count, exact=False) for r in found]
        if not any(reading.weight for reading in found):
            raise InputError("the loss ignores every target: at least one must count")
        return found

    @functools.cached_property
    def _counted(self) -> list[int]:
        """Which batches hold anything that counts: not those whose labels are all ignored."""
        return [index for index, reading in enumerate(self.readings) if reading.weight]

    @functools.cached_property
    def batches(self) -> Sequence[Batch]:
        """The batches that count, on the model's device."""
        if isinstance(self._given, Stream):
            return self._given.only(self._counted)
        return [self._given[index] for index in self._counted]

    @functools.cached_property
    def shares(self) -> list[float]:
        """What each batch's loss counts in the mean; they sum to one."""
        return [self.readings[index].weight / self.weight for index in self._counted]

    @functools.cached_property
    def label_shares(self) -> list[float] | None:
        """Each batch's share of the positions whose class label counts, or ``None``."""
        labels = [self.readings[index].labels for index in self._counted]
        total = sum(count or 0 for count in labels)
        if None in labels or not total:
            return None
        return [(count or 0) / total for count in labels]

    @property
    def weight(self) -> float:
        """What the loss is the mean over: Σ w of its terms, or N."""
        return math.fsum(reading.weight for reading in self.readings)

    @property
    def n_samples(self) -> int:
        """N: examples of all batches."""
        return sum(reading.count for reading in self.readings)

    def example_weights(self, index: int) -> Tensor:
        """What each example counts in the loss of ``batches[index]``; they sum to one.

        Returns:
            Shape (examples of the batch,), float64; equal where nothing else is known.
        """
        terms, count = self.batch_terms(index), self.counts[self._counted[index]]
        if terms is None or len(terms.rows) % count:
            return torch.full((count,), 1 / count, dtype=torch.float64, device=self.device)
        weights = terms.rows.reshape(count, -1).sum(dim=1)
        return weights / weights.sum()

    def batch_terms(self, index: int) -> LossTerms | None:
        """What the loss of a batch in :attr:`batches` averages over, if it is one of torch's."""
        return self.readings[self._counted[index]].terms

    @property
    def terms(self) -> list[LossTerms] | None:
        """What each batch's loss averages over, if it is one of torch's own."""
        found = [self.batch_terms(index) for index in range(len(self.batches))]
        return None if None in found else found  # type: ignore[return-value]

    def mean(self, values: Iterable[float]) -> float:
        """The mean of one value for each batch, weighed as the batches' losses are."""
        return math.fsum(s * v for s, v in zip(self.shares, values, strict=True))

    def label_mean(self, values: Iterable[float]) -> float:
        """The mean over all labelled positions of one value for each batch (an accuracy)."""
        return math.fsum(s * v for s, v in zip(self.label_shares or [], values, strict=True))
