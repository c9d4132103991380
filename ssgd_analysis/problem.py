"""A problem: a model, a loss and batches. Everything that measures takes one."""

import contextlib
import copy
import functools
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, Count, pair
from ssgd_analysis.devices import OUT_OF_MEMORY, is_out_of_memory, plain_python
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.loss import (
    Loss,
    LossTerms,
    LossValue,
    LossWatch,
    accuracy,
    call_loss,
    labelled,
    right_labels,
    scalar_loss,
    takes_model,
)
from ssgd_analysis.weights import evaluation_mode, flattened, matching
from ssgd_analysis.weights.untouched import overrides_mode, refuse_renormalised, unchanged

Piece = tuple[Batch, float]  # a part of a batch, and its share of the batch's loss


@dataclass(frozen=True)
class BatchReading:
    """What one pass over a batch tells of it.

    Args:
        count: examples.
        weight: what the batch's loss counts in the mean over the split.
        labels: positions whose class label counts; ``None`` where targets are no class labels.
        terms: what one of torch's own losses averaged over; ``None`` of any other loss.
        exact: whether the weight is known (one of torch's own losses, or a count that the loss
            returned) or taken for the number of examples.
    """

    count: int
    weight: float
    labels: int | None
    terms: LossTerms | None
    exact: bool


class Problem:
    """The mean loss over fixed examples as a function of the model's weights.

    One of torch's own losses (cross-entropy with class weights or ignored labels, BCE, NLL, MSE
    and so on; called by the user's loss, whose value it is) is a weighted mean of terms. The loss
    of the problem is then their weighted mean Σ w_i l_i / Σ w_i over all batches, however the
    examples are cut. Any other loss counts as the mean over its batch's examples: batch b of n_b
    examples weighs n_b / N; :attr:`divisible` tells whether that depends on the batches.

    The parameters are those that require gradients, each once (tied weights are one parameter),
    in the order of ``model.named_parameters()``. Evaluation mode is set while a method of this
    class, or :meth:`evaluating`, runs: the flag ``training`` of every module, without calling
    overrides of ``train`` and ``eval``. Mode, buffers and gradients come back as they were.

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
        >>> import torch
        >>> from torch import nn
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
        self.model = model
        self.loss = loss
        self.count = count
        self.takes_model = takes_model(loss)
        self.parameters = matching(
            {n: p for n, p in model.named_parameters() if p.requires_grad}, layers
        )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_meta:
                raise InputError(f"the model's '{name}' is on the meta device: give it weights")
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

    def examples(self, batch: Batch) -> int:
        """How many examples a batch holds.

        Raises:
            InputError: the user's ``count`` raises, or returns no number of examples.
        """
        if self.count is None:
            return batching.examples(batch)
        try:
            found = self.count(batch)
            whole = int(found)
        except Exception as error:  # a user's function may raise anything
            raise InputError(f"count can't count a batch: {first_line(error)}") from error
        if whole != found or whole < 0:
            raise InputError(f"count returns {found!r}, not a number of examples")
        return whole

    @functools.cached_property
    def readings(self) -> list[BatchReading]:
        """One pass over all batches: each one's loss and what it weighs; made once.

        Raises:
            InputError: model or loss do not take a batch, a loss that is a sum, labels out of
                range, nothing that counts, or a model that changes its parameters in a pass.
        """
        refuse_renormalised(self.model)
        with self.evaluating(), torch.no_grad(), plain_python(), unchanged(self.model):
            found = [self._read(b, n) for b, n in zip(self._given, self.counts, strict=True)]
        if not all(reading.exact for reading in found):  # then all weigh by their examples
            found = [replace(r, weight=r.count, exact=False) for r in found]
        if not any(reading.weight for reading in found):
            raise InputError("no target counts: every label is one that the loss ignores")
        return found

    def _read(self, batch: Batch, count: int) -> BatchReading:
        """One batch, in evaluation mode; in halves where the whole takes too much memory."""
        try:
            with LossWatch() as watch:
                found, outputs = self._evaluated(batch)
            terms = watch.terms(found.value)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error) or count < 2:
                raise
            halves = [
                self._read(half, self.examples(half))
                for half in batching.pieces(batch, (count + 1) // 2, count)
            ]
            return _joined(halves)
        if terms is not None and terms.summed and found.examples is None:
            raise InputError(
                f"the loss is a sum over the batch (reduction='sum' of {terms.name}): return the"
                " mean over its examples, so that it does not depend on the batch size"
            )
        labels = None
        if outputs is not None:
            targets = pair(batch)[1]
            if right_labels(outputs, targets) is not None:
                labels = int(labelled(outputs, targets, terms).sum())
        weight: float = count
        if found.examples is not None:
            weight = found.examples
            count = round(weight)
        elif terms is not None:
            weight = terms.total
            terms = replace(terms, weights=terms.rows)  # what one position weighs is not kept
        exact = terms is not None or found.examples is not None
        return BatchReading(count, weight, labels, terms, exact)

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
        weights = [self.readings[index].weight for index in self._counted]
        total = math.fsum(weights)
        return [weight / total for weight in weights]

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
        """What the loss is the mean over: Σ w of its terms, or the number of examples."""
        return math.fsum(reading.weight for reading in self.readings)

    @property
    def n_samples(self) -> int:
        """N: examples of all batches."""
        return sum(reading.count for reading in self.readings)

    def example_weights(self, index: int) -> Tensor:
        """What each example of a batch counts in the batch's loss; they sum to one.

        Args:
            index: of the batch in :attr:`batches`.

        Returns:
            Shape (examples of the batch,), float64; equal where nothing else is known.
        """
        place = self._counted[index]
        terms, count = self.readings[place].terms, self.counts[place]
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
        found = [self.readings[index].terms for index in self._counted]
        return None if None in found else found  # type: ignore[return-value]

    @property
    def notes(self) -> list[str]:
        """What was assumed of the problem or found odd, one sentence each."""
        found = []
        if self.count is None and not all(reading.exact for reading in self.readings):
            assumed = [batching.assumed_examples(batch)[1] for batch in self._given]
            found += [next(text for text in assumed if text)] if any(assumed) else []
        if self._unused:
            found.append(
                f"no gradient reaches {', '.join(self._unused)}: the loss does not depend on"
                f" {'it' if len(self._unused) == 1 else 'them'} for autograd"
            )
        if not self.divisible and (self._mixed or not all(r.exact for r in self.readings)):
            sizes = sorted(set(self.counts))
            which = f"{sizes[-1]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            found.append(
                "the loss of a batch is not the mean of its examples' losses (weights, padding,"
                " examples that see one another, or a batch that can't be cut): the numbers belong"
                f" to batches of {which} examples (--batch-size)"
            )
        return found

    @property
    def n_parameters(self) -> int:
        """P: entries of all parameters that require gradients."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype (the first one's)."""
        return next(iter(self.parameters.values())).dtype

    @property
    def device(self) -> torch.device:
        """The parameters' device (the first one's)."""
        return next(iter(self.parameters.values())).device

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode as a context; see :func:`ssgd_analysis.weights.evaluation_mode`."""
        return evaluation_mode(self.model)

    def outputs(self, inputs: Tensor) -> Tensor:
        """The model's outputs.

        Raises:
            InputError: the model does not return one tensor, or rejects the inputs.
        """
        try:
            outputs = self.model(inputs)
        except Exception as error:  # a stranger's model may raise anything
            if is_out_of_memory(error):
                raise
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in batching.tensors(inputs))
            raise InputError(
                f"the model does not take inputs of shape {shapes}: {first_line(error)}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"the model returns a {type(outputs).__name__}, not a tensor: give a loss whose"
                " parameters are (model, batch)"
            )
        return outputs

    def output_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of given outputs.

        Raises:
            InputError: the loss raises, or is not a scalar tensor.
        """
        return scalar_loss(self.loss, outputs, targets)

    def batch_loss(self, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar.

        Raises:
            InputError: model or loss do not take the batch, or the loss is not a scalar tensor.
        """
        value = self._evaluated(batch)[0].value
        return value if torch.is_grad_enabled() else value.detach()

    def _evaluated(self, batch: Batch) -> tuple[LossValue, Tensor | None]:
        """The loss of one batch, and the outputs where the loss takes them."""
        if self.takes_model:
            with torch.enable_grad():  # a loss may differentiate by its inputs (physics-informed)
                return call_loss(self.loss, self.model, batch), None
        inputs, targets = pair(batch)
        outputs = self.outputs(inputs)
        return call_loss(self.loss, outputs, targets), outputs

    def outputs_at(self, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """One batch's outputs as a pure function of the weights, for ``torch.func``."""
        return functional_call(self.model, self._slots(weights), (inputs,), tie_weights=False)

    def loss_at(self, weights: Sequence[Tensor], batch: Batch) -> Tensor:
        """One batch's loss as a pure function of the weights, for ``torch.func``."""
        weights_at = self._slots(weights, "model.")
        return functional_call(_BatchLoss(self), weights_at, (batch,), tie_weights=False)

    def _slots(self, weights: Sequence[Tensor], prefix: str = "") -> dict[str, Tensor]:
        """Every place that holds one of the parameters, once.

        ``functional_call`` would find tied ones itself, but visits a module that is used twice
        twice, and leaves foreign tensors in it.
        """
        given = {id(p): w for p, w in zip(self.parameters.values(), weights, strict=True)}
        return {
            prefix + f"{path}.{name}".lstrip("."): given[id(parameter)]
            for path, module in self.model.named_modules()
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
            if id(parameter) in given
        }

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector over all parameters, (P,), as one tensor of each parameter's shape."""
        parameters = list(self.parameters.values())
        pieces = vector.split([parameter.numel() for parameter in parameters])
        return [piece.reshape(p.shape) for piece, p in zip(pieces, parameters, strict=True)]

    def mean(self, values: Iterable[float]) -> float:
        """The mean of one value for each batch, weighed as the batches' losses are."""
        return math.fsum(s * v for s, v in zip(self.shares, values, strict=True))

    def label_mean(self, values: Iterable[float]) -> float:
        """The mean over all labelled positions of one value for each batch (an accuracy).

        Raises:
            InputError: the targets are no class labels.
        """
        if self.label_shares is None:
            raise InputError("the targets are no class labels")
        pairs = zip(self.label_shares, values, strict=True)
        return math.fsum(share * value for share, value in pairs if share)

    def weight_norm(self) -> float:
        """L2 norm over all parameters, in float64."""
        squares = [p.detach().double().square().sum().item() for p in self.parameters.values()]
        return math.sqrt(math.fsum(squares))

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
            for batch, index in zip(self.batches, self._counted, strict=True):
                inputs, targets = pair(batch)
                outputs = self.outputs(inputs)
                losses.append(float(self.output_loss(outputs, targets)))
                right = accuracy(outputs, targets, self.readings[index].terms)
                rights.append(0.0 if right is None else right)
        return losses, rights

    def gradient(self) -> list[Tensor]:
        """The gradient of the mean loss, one tensor for each parameter; ``.grad`` is untouched."""
        return self.losses_and_gradient()[1]

    def losses_and_gradient(self) -> tuple[list[float], list[Tensor]]:
        """The mean loss of each batch and the gradient of the mean of all, in the same passes."""
        total = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        losses = []
        with _each_batch(self) as batches:
            for share, batch in batches:
                loss, parts = self._loss_and_gradient(batch)
                losses.append(loss)
                for sum_, part in zip(total, parts, strict=True):
                    if part is not None:
                        sum_.add_(part, alpha=share)
        return [float(loss) for loss in losses], total

    def _loss_and_gradient(self, batch: Batch) -> tuple[Tensor, Sequence[Tensor | None]]:
        """One batch's loss and gradient; ``None`` for a parameter that the loss does not see."""
        loss = self.batch_loss(batch)
        parameters = list(self.parameters.values())
        if not loss.requires_grad:
            return loss, [None] * len(parameters)
        return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    def check(self, *, deterministic: bool = True) -> None:
        """Evaluate every batch twice, so that unfit parts are refused early.

        Args:
            deterministic: refuse a loss that differs between two evaluations, too.

        Raises:
            InputError: shapes that do not fit, a loss that is not a scalar, labels out of
                range, a loss that differs between two evaluations or with gradients on, or that
                is a sum; a model whose evaluation mode is more than a flag.
            WorkError: the loss is not finite at the present weights.
        """
        self._check_modes()
        losses = self.batch_losses()
        for loss in losses:
            if not math.isfinite(loss):
                raise WorkError(f"the loss is {loss} at these weights")
        if deterministic:
            self._check_paths(losses)
        self._check_sum()

    def _check_modes(self) -> None:
        """Refuse modules whose own ``train`` or ``eval`` changes what the model computes.

        Evaluation sets flags only: an adapter that merges itself into the weights in ``eval``
        would take its derivatives away, and leave the weights moved by rounding.
        """
        own = [name for name, module in self.model.named_modules() if overrides_mode(module)]
        if not own:
            return
        try:
            other = copy.copy(self)
            other.model = copy.deepcopy(self.model).eval()
        except Exception:  # a user's module may raise anything: then there is nothing to compare
            return
        stuck = [name for name, module in other.model.named_modules() if module.training]
        if stuck:
            raise InputError(
                f"the model's '{stuck[0]}' stays in training mode: curvature needs a model"
                " that can be set to evaluation mode"
            )
        with self.evaluating(), torch.no_grad():
            for batch in self._given:
                mine = float(self.batch_loss(batch))
                theirs = float(other.batch_loss(batch))
                if not self._close(mine, theirs):
                    raise InputError(
                        f"eval() of the model's '{own[0]}' does more than set flags: the loss is"
                        f" {theirs:.6g} after it and {mine:.6g} in evaluation mode by flags alone."
                        " Measure a model whose train() and eval() leave the function as it is"
                    )

    def _check_paths(self, losses: Sequence[float]) -> None:
        """One function, whether gradients are on or off (``losses``), and at every evaluation."""
        seen = [False] * len(self.parameters)
        with _each_batch(self) as batches:
            for (_, batch), before in zip(batches, losses, strict=True):
                with torch.no_grad():
                    again = float(self.batch_loss(batch))
                loss, parts = self._loss_and_gradient(batch)
                seen = [s or part is not None for s, part in zip(seen, parts, strict=True)]
                value = float(loss)
                if self._close(before, again) and self._close(again, value):
                    continue
                with torch.no_grad():
                    third = float(self.batch_loss(batch))
                if not (self._close(before, again) and self._close(again, third)):
                    raise InputError(
                        f"the loss differs between two evaluations ({before:.6g}, {third:.6g}):"
                        " curvature needs a model that is deterministic in evaluation mode"
                    )
                raise InputError(
                    f"the loss is {before:.6g} without gradients and {value:.6g} with them: model"
                    " or loss takes another path under torch.no_grad(), so that its derivatives"
                    " would not be those of its values"
                )
        self._unused = [n for n, s in zip(self.parameters, seen, strict=True) if not s]

    def _check_sum(self) -> None:
        """A sum over the batch would make every number depend on the batch size.

        It is one in every batch: a mean over the positives is equal to a sum where there is one.
        """
        if all(reading.exact for reading in self.readings):
            return
        sums = []  # whether each batch that can tell is the sum of its halves
        with self.evaluating(), torch.no_grad():
            for batch, count in zip(self._given, self.counts, strict=True):
                if count < 2:
                    continue
                try:
                    loss = float(self.batch_loss(batch))
                    halves = [
                        (float(self.batch_loss(half)), self.examples(half))
                        for half in batching.pieces(batch, (count + 1) // 2, count)
                    ]
                except InputError:
                    continue  # a batch that can't be cut
                mean = math.fsum(value * share / count for value, share in halves)
                total = math.fsum(value for value, _ in halves)
                sum_, mean_ = math.isclose(loss, total, rel_tol=1e-3), self._close(loss, mean)
                if not (sum_ and mean_):  # a loss of zero is both
                    sums.append(sum_)
        if sums and all(sums):
            raise InputError(
                "the loss is a sum over the batch: return the mean over its examples, so that it"
                " does not depend on the batch size"
            )

    @property
    def tolerance(self) -> float:
        """How far two ways to compute one number may differ by rounding, relative to it."""
        return max(torch.finfo(p.dtype).eps for p in self.parameters.values()) ** 0.5

    def _close(self, one: float, other: float) -> bool:
        scale = self.tolerance
        return math.isclose(one, other, rel_tol=scale, abs_tol=1e-3 * scale)

    @functools.cached_property
    def divisible(self) -> bool:
        """Whether every batch's loss and gradient are the mean of its halves'.

        They are not where examples see one another (BatchNorm without running statistics), or
        count unequally in a loss that is not torch's own.
        """
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
            for index in self._counted:
                parts = self._parted(
                    self._given[index], self.counts[index], self.readings[index], sizes[index]
                )
                if parts is None:
                    return None
                found.append(parts)
        return found

    def _parted(
        self, batch: Batch, count: int, reading: BatchReading, size: int
    ) -> list[Piece] | None:
        """One batch in pieces, or ``None`` where it is not their mean."""
        if size >= count:
            return [(batch, 1.0)]
        try:
            parts = batching.pieces(batch, size, count)
            counts = [self.examples(part) for part in parts]
            with torch.no_grad():
                found = [self._read(p, n) for p, n in zip(parts, counts, strict=True)]
            if reading.exact and not all(part.exact for part in found):
                return None
            weights = [part.weight if reading.exact else part.count for part in found]
            if not math.isclose(math.fsum(weights), reading.weight, rel_tol=1e-9):
                return None
            cut = [(p, w / reading.weight) for p, w in zip(parts, weights, strict=True) if w]
            same = self._is_mean(batch, cut)
            if same is None:  # the whole does not fit into memory: the pieces tell by theirs
                return (
                    cut
                    if all(
                        self._parted(p, n, r, (n + 1) // 2) is not None
                        for p, n, r in zip(parts, counts, found, strict=True)
                        if n > 1 and r.weight
                    )
                    else None
                )
        except Exception as error:  # of a piece that is no batch: a user's model may raise anything
            if is_out_of_memory(error):
                raise
            return None
        self._mixed = self._mixed or not same
        return cut if same else None

    def _is_mean(self, batch: Batch, parts: Sequence[Piece]) -> bool | None:
        """Whether a batch's loss and gradient are the weighted means of its parts'.

        ``None``: not even its loss fits into memory.
        """
        gradient: Tensor | None = None
        try:
            loss, gradient = self._flat(batch)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            try:
                with torch.no_grad():
                    loss = self.batch_loss(batch)
            except OUT_OF_MEMORY as again:
                if not is_out_of_memory(again):
                    raise
                return None
        mean, rest, size = 0.0, gradient, 0.0
        for part, share in parts:
            value, slope = self._flat(part)
            mean += share * float(value)
            if rest is not None:
                rest = rest - share * slope
                size += share * float(slope.norm())
        if not self._close(float(loss), mean):
            return False
        return rest is None or float(rest.norm()) <= self.tolerance * size + 1e-300

    def _flat(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and gradient of a batch, the latter as one vector in float64."""
        loss, parts = self._loss_and_gradient(batch)
        zeros = map(torch.zeros_like, self.parameters.values())
        whole = [z if p is None else p for p, z in zip(parts, zeros, strict=True)]
        return loss, flattened([part.to_dense().double() for part in whole])


def as_problem(
    given: nn.Module | Problem,
    loss: Loss | None,
    batches: Iterable[Batch],
    *,
    count: Count | None = None,
    layers: Sequence[str] = (),
) -> Problem:
    """A problem as it is given, or one made of a model, a loss and batches.

    Raises:
        InputError: a model without a loss, or what :class:`Problem` refuses.
    """
    if isinstance(given, Problem):
        return given
    if loss is None:
        raise InputError("a model needs a loss and batches: (model, loss, batches), or a Problem")
    return Problem(given, loss, batches, count=count, layers=layers)


@contextlib.contextmanager
def _each_batch(problem: Problem) -> Iterator[Iterator[tuple[float, Batch]]]:
    """Shares and batches, in evaluation mode with gradients on."""
    shares, batches = problem.shares, problem.batches
    with problem.evaluating(), torch.enable_grad():
        yield zip(shares, batches, strict=True)


def _joined(parts: Sequence[BatchReading]) -> BatchReading:
    """The reading of a batch from those of its parts."""
    weight = math.fsum(part.weight for part in parts)
    labels = [part.labels for part in parts]
    return BatchReading(
        sum(part.count for part in parts),
        weight,
        None if None in labels else sum(count or 0 for count in labels),
        None,
        all(part.exact for part in parts),
    )


class _BatchLoss(nn.Module):
    """A problem's batch loss as a module, so that its weights can be given from outside."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model = problem.model
        self.batch_loss = problem.batch_loss

    def forward(self, batch: Batch) -> Tensor:
        return self.batch_loss(batch)
