"""Calling a loss that may be a user's own, and what torch's losses average over.

A loss of torch's own is a weighted mean Σ w_i l_i / Σ w_i of terms: class weights and ignored
labels are such weights. What it divides by is read off the call itself, so that the mean over
many batches can be the mean over all their terms, and does not depend on where batches are cut.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ssgd_analysis.batch import Batch
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, first_line

Loss = Callable[..., Any]  # (outputs, targets) or (model, batch) -> scalar, or (scalar, count)


class LossValue(NamedTuple):
    """A loss and the number of examples that it says it is the mean of, if it says so."""

    value: Tensor
    examples: float | None


@dataclass(frozen=True)
class LossTerms:
    """What a call of one of torch's own losses averaged over.

    Args:
        name: of the function, such as ``cross_entropy``.
        weights: of its terms, float64: of the targets' shape for class labels, else Σ w of the
            terms of each row of its first argument, shape (rows,).
        summed: whether it returned Σ w l instead of Σ w l / Σ w.
        count: how many terms there are, those of weight zero too.
        ignored: the class label that does not count; ``None`` where the targets are no labels.
        smoothed: whether labels are smoothed.
    """

    name: str
    weights: Tensor
    count: int
    summed: bool = False
    ignored: int | None = None
    smoothed: bool = False

    @property
    def total(self) -> float:
        """Σ w of all terms: what the mean divides by."""
        return float(self.weights.sum())

    @property
    def rows(self) -> Tensor:
        """Σ w of the terms of each row of its first argument, shape (rows,)."""
        weights = self.weights if self.weights.ndim else self.weights.reshape(1)
        return weights.reshape(len(weights), -1).sum(dim=1)


MODELS = ("model", "module", "net", "network", "m")


def takes_model(loss: Loss) -> bool:
    """Whether a loss is to be called as ``loss(model, batch)``: by its first parameter.

    That is so if it is called ``model``, ``module``, ``net``, ``network`` or ``m``, or annotated
    as a module.
    """
    try:
        first = next(iter(inspect.signature(loss).parameters.values()), None)
    except (TypeError, ValueError):  # built-in functions may have no signature
        return False
    if first is None:
        return False
    kind = first.annotation
    annotated = isinstance(kind, type) and issubclass(kind, nn.Module)
    return first.name in MODELS or annotated


def call_loss(loss: Loss, outputs: Tensor | nn.Module, targets: Batch) -> LossValue:
    """Apply a loss that may be a user's own, to outputs and targets or to a model and a batch.

    Raises:
        InputError: it raises, or returns neither a scalar tensor nor ``(scalar, count)``.
    """
    try:
        value = loss(outputs, targets)
    except InputError:
        raise
    except Exception as error:  # a user's loss may raise anything
        if is_out_of_memory(error):
            raise
        taken = (
            f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
            if isinstance(outputs, Tensor) and isinstance(targets, Tensor)
            else "the outputs and these targets"
            if isinstance(outputs, Tensor)
            else "the model and a batch"
        )
        raise InputError(f"the loss does not take {taken}: {first_line(error)}") from error
    count = None
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], Tensor):
        value, count = value[0], _count(value[1])
    if not isinstance(value, Tensor):
        raise InputError(f"the loss returns a {type(value).__name__}, not a scalar tensor")
    if value.numel() != 1:
        raise InputError(f"the loss is not scalar: its shape is {tuple(value.shape)}")
    return LossValue(value if value.ndim == 0 else value.reshape(()), count)


def scalar_loss(loss: Loss, outputs: Tensor | nn.Module, targets: Batch) -> Tensor:
    """The value alone of :func:`call_loss`."""
    return call_loss(loss, outputs, targets).value


def _count(given: Any) -> float:
    """The number of examples that a loss returned beside its value."""
    try:
        count = float(given)
    except (TypeError, ValueError):
        count = -1.0
    if not 0 <= count < float("inf"):
        raise InputError(f"the loss returns (value, count), but the count is {given}")
    return count


def right_labels(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Which class labels are right, of the targets' shape.

    Args:
        outputs: logits, shape (B, C, …).
        targets: class labels, shape (B, …); anything else gives ``None``. Labels that are no
            class (−100, 255) are never right; :func:`labelled` says which are classes.
    """
    if not isinstance(targets, Tensor) or targets.is_floating_point() or outputs.ndim < 2:
        return None
    labels = outputs.argmax(dim=1)
    if labels.shape != targets.shape or outputs.shape[1] < 2:
        return None
    return labels == targets


def labelled(outputs: Tensor, targets: Tensor, terms: LossTerms | None = None) -> Tensor:
    """Which positions have a label that counts, of the targets' shape.

    Args:
        outputs: logits, shape (B, C, …).
        targets: class labels, shape (B, …).
        terms: of the loss, which knows the label that it ignores.
    """
    classes = (targets >= 0) & (targets < outputs.shape[1])
    return (
        classes if terms is None or terms.ignored is None else classes & (targets != terms.ignored)
    )


def accuracy(outputs: Tensor, targets: Tensor, terms: LossTerms | None = None) -> float | None:
    """The share of right class labels among those that count; see :func:`right_labels`.

    Returns:
        ``None`` where the targets are no class labels; 0 where none of them counts.
    """
    found = right_share(outputs, targets, terms)
    return None if found is None else float(found)


def right_share(outputs: Tensor, targets: Tensor, terms: LossTerms | None = None) -> Tensor | None:
    """As :func:`accuracy`, a scalar that stays on its device."""
    right = right_labels(outputs, targets)
    if right is None:
        return None
    counts = labelled(outputs, targets, terms)
    return (right & counts).sum().double() / counts.sum().clamp(min=1)


class LossWatch(TorchFunctionMode):
    """Inside, calls of torch's own losses are noted; :meth:`terms` finds the one that counted.

    Args:
        check_labels: refuse class labels out of range before torch sees them, which ends the
            process on a GPU. Not where values can't be looked at, as in a trace.
    """

    def __init__(self, *, check_labels: bool = True) -> None:
        super().__init__()
        self.check_labels = check_labels
        self._calls: list[tuple[Tensor, LossTerms]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a loss with what it averages over."""
        read = _READERS.get(func)
        found = None if read is None else _read(func, read, args, kwargs or {}, self.check_labels)
        value = func(*args, **(kwargs or {}))
        if found is not None and isinstance(value, Tensor) and value.ndim == 0:
            self._calls.append((value, found))
        return value

    def terms(self, value: Tensor) -> LossTerms | None:
        """The terms of a loss, if ``value`` is what one call returned, unchanged."""
        return next((terms for noted, terms in self._calls if noted is value), None)


Reader = Callable[[Mapping[str, Any], bool], LossTerms | None]


def _read(func: Any, read: Reader, args: Any, kwargs: Any, check_labels: bool) -> LossTerms | None:
    """What a call averages over; ``None`` where it returns no mean or sum."""
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except TypeError:  # torch will say what is wrong
        return None
    bound.apply_defaults()
    given = bound.arguments
    legacy = (given.get("size_average"), given.get("reduce"))
    reduction = given["reduction"]
    if legacy != (None, None):  # torch's rule: both true by default
        size_average, reduce = (True if one is None else one for one in legacy)
        reduction = "none" if not reduce else "mean" if size_average else "sum"
    if reduction not in ("mean", "sum", "batchmean") or not isinstance(given["input"], Tensor):
        return None
    terms = read(given | {"reduction": reduction}, check_labels)
    if terms is None:
        return None
    return replace(
        terms,
        name=func.__name__,
        weights=terms.weights.detach(),
        summed=reduction == "sum",
    )


def _of_classes(given: Mapping[str, Any], check_labels: bool) -> LossTerms | None:
    """Cross-entropy and NLL: each position weighs as its label's class; ignored ones nothing."""
    logits, targets, weight = given["input"], given["target"], given["weight"]
    smoothed = bool(given.get("label_smoothing", 0.0))
    classes = logits.shape[1 if logits.ndim > 1 else 0] if logits.ndim else 0
    if targets.is_floating_point():  # probabilities: every position counts one
        rows = len(logits) if logits.ndim > 1 else 1
        each = logits.numel() / max(classes, 1) / max(rows, 1)
        weights = torch.full((rows,), each, dtype=torch.float64, device=logits.device)
        return LossTerms("", weights, round(each * rows), smoothed=smoothed)
    counts = targets != given["ignore_index"]
    if check_labels and targets.numel():
        _check_labels(targets, counts, classes)
    safe = torch.where(counts, targets, 0)
    weights = counts.double()
    if weight is not None:  # index_select, as plain indexing can not be traced
        weights = weights * weight.double().index_select(0, safe.reshape(-1)).reshape(safe.shape)
    ignored = given["ignore_index"]
    return LossTerms("", weights, targets.numel(), ignored=ignored, smoothed=smoothed)


def _check_labels(targets: Tensor, counts: Tensor, classes: int) -> None:
    wrong = counts & ((targets < 0) | (targets >= classes))
    if not bool(wrong.any()):
        return
    labels = targets[wrong]
    label = int(labels.min() if labels.min() < 0 else labels.max())
    reason = "labels count from 0" if label < 0 else f"the model has {classes} outputs"
    raise InputError(
        f"label {label} is out of range: {reason} (labels to leave out: a loss with"
        f" ignore_index={label})"
    )


def _of_elements(given: Mapping[str, Any], check_labels: bool) -> LossTerms:
    """Losses that are the mean over all entries, or with ``batchmean`` the sum over rows' count."""
    shape = given["input"].shape
    if isinstance(given.get("target"), Tensor):
        shape = torch.broadcast_shapes(shape, given["target"].shape)
    rows = shape[0] if shape else 1
    each = 1.0 if given["reduction"] == "batchmean" else shape.numel() / max(rows, 1)
    weights = torch.full((rows,), each, dtype=torch.float64, device=given["input"].device)
    return LossTerms("", weights, round(each * rows))


def _of_weighted_elements(given: Mapping[str, Any], check_labels: bool) -> LossTerms:
    """As :func:`_of_elements`; a weight of each entry is what the mean divides by."""
    weight = given.get("weight")
    if isinstance(weight, Tensor) and weight.shape == given["input"].shape:
        return LossTerms("", weight.double(), weight.numel())
    return _of_elements(given, check_labels)


def _of_examples(given: Mapping[str, Any], check_labels: bool) -> LossTerms:
    """Losses that sum or average over the outputs of an example, then average over examples."""
    shape = given["input"].shape[:-1]
    rows = shape[0] if shape else 1
    each = shape.numel() / max(rows, 1)
    weights = torch.full((rows,), each, dtype=torch.float64, device=given["input"].device)
    return LossTerms("", weights, round(each * rows))


# Which of torch's losses average over what. The rest take more than outputs and targets.
_READERS: dict[Any, Reader] = {
    F.cross_entropy: _of_classes,
    F.nll_loss: _of_classes,
    F.binary_cross_entropy: _of_elements,  # `weight` multiplies terms, it does not divide
    F.binary_cross_entropy_with_logits: _of_elements,
    F.mse_loss: _of_weighted_elements,
    F.l1_loss: _of_weighted_elements,
    F.smooth_l1_loss: _of_elements,
    F.huber_loss: _of_elements,
    F.poisson_nll_loss: _of_elements,
    F.gaussian_nll_loss: _of_elements,
    F.kl_div: _of_elements,
    F.soft_margin_loss: _of_elements,
    F.hinge_embedding_loss: _of_elements,
    F.multi_margin_loss: _of_examples,
    F.multilabel_margin_loss: _of_examples,
    F.multilabel_soft_margin_loss: _of_examples,
}
