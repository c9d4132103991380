"""A problem: a model, a loss and batches. Everything that measures takes one."""

import copy
import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, Count, pair
from ssgd_analysis.devices import plain_python
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.problem.batch_loss import BatchLoss, BatchReading
from ssgd_analysis.problem.fitness import check_modes, check_paths, check_sum, notes
from ssgd_analysis.problem.loss import Loss, accuracy
from ssgd_analysis.problem.loss_terms import LossTerms
from ssgd_analysis.problem.pieces import Piece, parted
from ssgd_analysis.weights.untouched import refuse_renormalised, unchanged


class Problem(BatchLoss):
    """The mean loss over fixed examples as a function of the model's weights.

    One of torch's own losses (cross-entropy with class weights or ignored labels, BCE, NLL, MSE
    and so on; called by the user's loss, whose value it is) is a weighted mean of terms. The loss
    of the problem is then their weighted mean Σ w_i l_i / Σ w_i over all batches, however the
    examples are cut. Any other loss counts as the mean over its batch's examples: batch b of n_b
    examples weighs n_b / N; :attr:`divisible` tells whether that depends on the batches.

    The parameters are those that require gradients, each once, in the order of
    ``model.named_parameters()``. Methods of this class set evaluation mode (the flag ``training``,
    without calling overrides of ``train`` and ``eval``); mode, buffers and gradients come back.

    Args:
        model: returns outputs of shape (B, …).
        loss: ``(outputs, targets) -> scalar``, the mean over the batch. A loss whose first
            parameter is named ``model`` is called as ``loss(model, batch)`` instead, for models
            with several inputs, losses of their own, or no targets at all. Either may return
            ``(scalar, count)``: the scalar is then the mean over ``count`` examples.
        batches: ``(inputs, targets)`` pairs, or whatever ``loss(model, batch)`` takes; read
            once, moved to the model's device and kept there.
        count: the number of examples of a batch; default
            :func:`ssgd_analysis.batch.assumed_examples`.
        layers: patterns as ``conv*`` over parameter and module names: only the parameters that
            match one of them count; the others are constants. Default: all.

    Raises:
        InputError: no batches, an empty batch, no parameter that requires gradients, one without
            storage, or a pattern that matches none.

    Example:
        >>> import torch; from torch import nn
        >>> model, loss = nn.Linear(4, 2), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))
        >>> x, y = torch.randn(32, 4), torch.arange(32) % 2
        >>> whole = Problem(model, loss, [(x, y)]).mean_loss()
        >>> halves = Problem(model, loss, list(zip(x.split(20), y.split(20)))).mean_loss()
        >>> abs(whole - halves) < 1e-6
        True
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[Batch],
        *,
        count: Count | None = None,
        layers: Sequence[str] = (),
    ) -> None:
        super().__init__(model, loss, count=count, layers=layers)
        self._use(batches)

    def _use(self, batches: Iterable[Batch]) -> None:
        self._given: list[Batch] = [batching.to(batch, self.device) for batch in batches]
        self.counts = [self.examples(batch) for batch in self._given]
        if not self._given or min(self.counts) == 0:
            raise InputError("the data is empty: no batch, or a batch without examples")
        self._cuts: dict[int, list[list[Piece]] | None] = {}
        self._unused: list[str] = []
        self.checked: dict[Any, Any] = {}  # of operators over this problem, by their kind
        self._mixed = False  # whether some batch is not the mean of its parts

    def with_batches(self, batches: Iterable[Batch]) -> Self:
        """The same model, loss and parameters over other batches."""
        other = copy.copy(self)
        for name in ("readings", "_counted", "batches", "shares", "label_shares", "divisible"):
            other.__dict__.pop(name, None)
        other._use(batches)
        return other

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
            raise InputError("no target counts: every label is one that the loss ignores")
        return found

    @functools.cached_property
    def _counted(self) -> list[int]:
        """Which batches hold anything that counts: not those whose labels are all ignored."""
        return [index for index, reading in enumerate(self.readings) if reading.weight]

    @functools.cached_property
    def batches(self) -> list[Batch]:
        """The batches that count, on the model's device."""
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

    @property
    def notes(self) -> list[str]:
        """What was assumed of the problem or found odd, one sentence each."""
        exact = all(reading.exact for reading in self.readings)
        whole = not self.divisible and (self._mixed or not exact)
        return notes(self, self._given, self.counts, exact, whole, self._unused)

    def mean(self, values: Iterable[float]) -> float:
        """The mean of one value for each batch, weighed as the batches' losses are."""
        return math.fsum(s * v for s, v in zip(self.shares, values, strict=True))

    def label_mean(self, values: Iterable[float]) -> float:
        """The mean over all labelled positions of one value for each batch (an accuracy)."""
        return math.fsum(s * v for s, v in zip(self.label_shares or [], values, strict=True))

    def fingerprint(self) -> str:
        """A hash of weights, buffers and examples: what kept numbers must belong to."""
        digest = hashlib.blake2b(digest_size=16)
        held = [*self.model.parameters(), *self.model.buffers()]
        held += [tensor for batch in self.batches for tensor in batching.tensors(batch)]
        for tensor in held:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            whole = tensor.detach().cpu().contiguous().flatten()
            digest.update(whole.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def batch_losses(self) -> list[float]:
        """The mean loss of each batch at the present weights, no gradients."""
        batches = self.batches
        with self.evaluating(), torch.no_grad():
            return [float(self.batch_loss(batch)) for batch in batches]

    def mean_loss(self) -> float:
        """The mean loss over all examples at the present weights."""
        return self.mean(self.batch_losses())

    def evaluate(self) -> tuple[float, float | None]:
        """Mean loss over all examples, and accuracy: ``None`` without class labels as targets."""
        losses, rights = self.batch_scores()
        return self.mean(losses), None if rights is None else self.label_mean(rights)

    def batch_scores(self) -> tuple[list[float], list[float] | None]:
        """Mean loss of each batch, and its share of right labels (or ``None``), in one pass.

        The share is of the positions whose label counts; see :meth:`label_mean`.
        """
        if self.takes_model or self.label_shares is None:
            return self.batch_losses(), None
        losses, rights = [], []
        with self.evaluating(), torch.no_grad():
            for index, batch in enumerate(self.batches):
                inputs, targets = pair(batch)
                outputs = self.outputs(inputs)
                losses.append(float(self.output_loss(outputs, targets)))
                right = accuracy(outputs, targets, self.batch_terms(index))
                rights.append(0.0 if right is None else right)
        return losses, rights

    def gradient(self) -> list[Tensor]:
        """The gradient of the mean loss, one tensor for each parameter; ``.grad`` is untouched."""
        return self.losses_and_gradient()[1]

    def losses_and_gradient(self) -> tuple[list[float], list[Tensor]]:
        """The mean loss of each batch and the gradient of the mean of all, in the same passes."""
        total = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        losses = []
        shares, batches = self.shares, self.batches
        with self.evaluating(), torch.enable_grad():
            for share, batch in zip(shares, batches, strict=True):
                loss, parts = self.loss_and_gradient(batch)
                losses.append(loss)
                for sum_, part in zip(total, parts, strict=True):
                    if part is not None:
                        sum_.add_(part, alpha=share)
        return [float(loss) for loss in losses], total

    def check(self, *, deterministic: bool = True) -> None:
        """Evaluate every batch a few times, so that unfit parts are refused early.

        Args:
            deterministic: refuse a loss that differs between evaluations or with gradients on.

        Raises:
            InputError: parts that do not fit together, labels out of range, a loss that differs
                or is a sum, a model whose evaluation mode is more than a flag.
            WorkError: the loss is not finite at the present weights.
        """
        check_modes(self, self._given)
        read = "readings" in self.__dict__  # before: at other weights, perhaps
        losses = [self.readings[index].loss for index in self._counted]
        losses = self.batch_losses() if read else losses
        for loss in losses:
            if not math.isfinite(loss):
                raise WorkError(f"the loss is {loss} at these weights")
        if deterministic:
            self._unused = check_paths(self, self.batches, losses)
        if not all(reading.exact for reading in self.readings):
            check_sum(self, self._given, self.counts)

    @property
    def precision(self) -> torch.dtype:
        """The coarsest dtype of the parameters and of any batch's loss."""
        losses = [reading.dtype for reading in self.readings if reading.dtype.is_floating_point]
        return max([super().precision, *losses], key=lambda dtype: torch.finfo(dtype).eps)

    @functools.cached_property
    def divisible(self) -> bool:
        """Whether every batch's loss and gradient are the mean of its halves'."""
        return self._divided([(count + 1) // 2 for count in self.counts]) is not None

    def cut(self, size: int) -> list[list[Piece]] | None:
        """Every batch in pieces of at most ``size`` examples, with each one's share of its batch.

        Made once a size. Every batch is compared with its pieces, in loss and gradient, at the
        cost of two gradients; pieces in which nothing counts are left out.

        Returns:
            ``None`` if some batch's loss is not the mean of its pieces', or a piece can't be
            evaluated.
        """
        if size not in self._cuts:
            self._cuts[size] = self._divided([size] * len(self.counts))
        return self._cuts[size]

    def _divided(self, sizes: Sequence[int]) -> list[list[Piece]] | None:
        found = []
        with self.evaluating(), torch.enable_grad(), plain_python():
            for i in self._counted:
                parts = parted(self, self._given[i], self.counts[i], self.readings[i], sizes[i])
                if not parts:
                    self._mixed = self._mixed or parts is False
                    return None
                found.append(parts)
        return found


def as_problem(
    given: nn.Module | Problem,
    loss: Loss | None,
    batches: Iterable[Batch],
    *,
    count: Count | None = None,
    layers: Sequence[str] = (),
) -> Problem:
    """A problem as it is given, or one made of a model, a loss and batches; as it raises."""
    if isinstance(given, Problem):
        return given
    if loss is None:
        raise InputError("a model needs a loss and batches: (model, loss, batches), or a Problem")
    return Problem(given, loss, batches, count=count, layers=layers)
