"""What one of torch's losses averages over, read off the call.

A loss of torch's own is a weighted mean Σ w_i l_i / Σ w_i of terms: class weights and ignored
labels are such weights. What it divides by is read off the call itself, so that the mean over
many batches can be the mean over all their terms, and does not depend on where batches are cut.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ssgd_analysis.errors import InputError


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
        moving: whether the weights themselves depend on what is differentiated.
    """

    name: str
    weights: Tensor
    count: int
    summed: bool = False
    ignored: int | None = None
    smoothed: bool = False
    moving: bool = False

    @property
    def total(self) -> float:
        """Σ w of all terms: what the mean divides by."""
        return float(self.weights.sum())

    @property
    def rows(self) -> Tensor:
        """Σ w of the terms of each row of its first argument, shape (rows,)."""
        weights = self.weights if self.weights.ndim else self.weights.reshape(1)
        if not weights.numel():  # of no term at all
            return weights.reshape(-1)
        return weights.reshape(len(weights), -1).sum(dim=1)


class LossWatch(TorchFunctionMode):
    """Inside, calls of torch's own losses are noted; :meth:`terms` finds the one that counted.

    Args:
        check_labels: refuse class labels out of range before torch sees them, which ends the
            process on a GPU. Not where values can't be looked at, as in a trace.
    """

    def __init__(self, *, check_labels: bool = True) -> None:
        super().__init__()
        self.check_labels = check_labels
        self._calls: list[tuple[Tensor, int, Tensor, LossTerms]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a loss with what it averages over."""
        read = _READERS.get(func)
        found = None if read is None else _read(func, read, args, kwargs or {}, self.check_labels)
        value = func(*args, **(kwargs or {}))
        if found is not None and isinstance(value, Tensor) and value.ndim == 0:
            given = args[0] if args else (kwargs or {})["input"]
            self._calls.append((value, value._version, given, found))
        return value

    def terms(self, value: Tensor) -> LossTerms | None:
        """The terms of a loss, if ``value`` is what one call returned, unchanged."""
        for noted, version, _, terms in self._calls:
            if noted is value and value._version == version:
                return terms
        return None

    @property
    def values(self) -> list[Tensor]:
        """What the calls returned."""
        return [value for value, _, _, _ in self._calls]

    @property
    def moving(self) -> bool:
        """Whether some call's weights depend on what is differentiated."""
        return any(terms.moving for _, _, _, terms in self._calls)

    def terms_of(self, value: Tensor, outputs: Tensor) -> LossTerms | None:
        """As :meth:`terms`, if the loss was called with these very outputs: then the rows match."""
        read = any(noted is value and given is outputs for noted, _, given, _ in self._calls)
        return self.terms(value) if read else None


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
        moving=terms.weights.requires_grad,
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
        f"label {label} is out of range: {reason} (to leave such labels out, use a loss"
        f" with ignore_index={label})"
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
