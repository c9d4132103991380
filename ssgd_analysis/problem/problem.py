"""A problem: a model, a loss and batches. Everything that measures takes one."""

import copy
import functools
import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, Count, pair
from ssgd_analysis.devices import plain_python
from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.problem.described import described
from ssgd_analysis.problem.fitness import check_modes, check_paths, check_sum, notes
from ssgd_analysis.problem.loss import Loss, accuracy
from ssgd_analysis.problem.pieces import Piece, parted
from ssgd_analysis.problem.weighted_batches import WeightedBatches

# Every batch in pieces; False where one is not the mean of its pieces, None where one can't be cut.
Cut = list[list[Piece]] | Literal[False] | None

UNUSED = "unused"  # under it ``checked`` has the parameters that no gradient reaches


class Problem(WeightedBatches):
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
        notes: what is known of the weights' origin; it begins :attr:`notes`.

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
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(model, loss, count=count, layers=layers)
        self._origin = list(notes)
        self._use(batches)

    def __repr__(self) -> str:
        """One line: model, loss, and how many of what."""
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        return (
            f"Problem({type(self.model).__name__}, {loss}, P={self.n_parameters},"
            f" N={sum(self.counts)} in {len(self.counts)} batches)"
        )

    def with_batches(self, batches: Iterable[Batch]) -> Self:
        """The same model, loss and parameters over other batches.

        Args:
            batches: as for the constructor.

        Raises:
            InputError: no batches, or an empty one.

        Example:
            >>> import torch; from torch import nn
            >>> x, y = torch.randn(8, 4), torch.randn(8, 2)
            >>> problem = Problem(nn.Linear(4, 2), nn.MSELoss(), [(x, y)])
            >>> len(problem.with_batches(zip(x.split(2), y.split(2))).batches)
            4
        """
        other = self._without(lambda name: True)
        other._use(batches)
        return other

    def restricted(self, names: Iterable[str]) -> Self:
        """The same loss over the same batches as a function of some parameters only.

        Args:
            names: exact names of parameters of this problem; the others become constants. Their
                order stays that of the model.

        Raises:
            InputError: no names, or one that is no parameter of this problem.

        Example:
            >>> import torch; from torch import nn
            >>> batch = (torch.ones(8, 4), torch.ones(8, 2))
            >>> problem = Problem(nn.Linear(4, 2), nn.MSELoss(), [batch])
            >>> problem.restricted(["bias"]).n_parameters
            2
        """
        wanted = list(names)
        for name in wanted:
            if name not in self.parameters:
                raise unknown("parameter", name, self.parameters)
        if not wanted:
            raise InputError("a problem needs the name of at least one parameter")
        other = self._without(lambda name: name not in vars(WeightedBatches))
        other.parameters = {n: p for n, p in self.parameters.items() if n in wanted}
        return other

    def _without(self, stale: Callable[[str], bool]) -> Self:
        """A copy without those cached properties that no longer hold."""
        other = copy.copy(self)
        for name in list(vars(other)):
            cached = isinstance(getattr(type(self), name, None), functools.cached_property)
            if cached and stale(name):
                del other.__dict__[name]
        return other

    @functools.cached_property
    def checked(self) -> dict[Hashable, Any]:
        """The results of this problem's checks, each made once; operators add their own."""
        return {}

    @property
    def notes(self) -> list[str]:
        """What was assumed of the problem or found odd, one sentence each."""
        exact = all(reading.exact for reading in self.readings)
        mixed = any(found is False for found in (self._halves, *self._cuts.values()))
        whole = not self.divisible and (mixed or not exact)
        unused = self.checked.get(UNUSED, [])
        return [*self._origin, *notes(self, self._given, self.counts, exact, whole, unused)]

    def fingerprint(self) -> str:
        """A hash of weights, buffers, examples and loss: what stored numbers must belong to."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([list(self.parameters), described(self.loss)]).encode())
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
        unused = check_paths(self, self.batches, losses) if deterministic else None
        if not all(reading.exact for reading in self.readings):
            check_sum(self, self._given, self.counts)
        if unused is not None:  # last: a problem that was refused is refused again
            self.checked[UNUSED] = unused

    @property
    def precision(self) -> torch.dtype:
        """The coarsest dtype of the parameters and of any batch's loss."""
        losses = [reading.dtype for reading in self.readings if reading.dtype.is_floating_point]
        return max([super().precision, *losses], key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def divisible(self) -> bool:
        """Whether every batch's loss and gradient are the mean of its halves'."""
        return bool(self._halves)

    @functools.cached_property
    def _halves(self) -> Cut:
        return self._divided([(count + 1) // 2 for count in self.counts])

    @functools.cached_property
    def _cuts(self) -> dict[int, Cut]:
        """By size of the pieces; filled by :meth:`cut`."""
        return {}

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
        return self._cuts[size] or None

    def _divided(self, sizes: Sequence[int]) -> Cut:
        found = []
        with self.evaluating(), torch.enable_grad(), plain_python():
            for i in self._counted:
                parts = parted(self, self._given[i], self.counts[i], self.readings[i], sizes[i])
                if not parts:
                    return parts if parts is False else None
                found.append(parts)
        return found
