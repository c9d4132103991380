"""Calling a loss that may be a user's own, and what else outputs and targets tell."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ssgd_analysis.batch import Batch
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem.loss_terms import LossTerms

Loss = Callable[..., Any]  # (outputs, targets) or (model, batch) -> scalar, or (scalar, count)


class LossValue(NamedTuple):
    """A loss and the number of examples that it says it is the mean of, if it says so."""

    value: Tensor
    examples: float | None


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
    if not (count >= 0 and count.is_integer()):
        raise InputError(
            f"the loss returns (value, count), but the count {given} is not a whole number ≥ 0"
        )
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
