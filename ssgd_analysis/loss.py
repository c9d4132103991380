"""Calling a loss that may be a stranger's, and what else outputs and targets tell."""

import inspect
from collections.abc import Callable

from torch import Tensor, nn

from ssgd_analysis.batch import Batch
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, first_line

Loss = Callable[..., Tensor]  # (outputs, targets) or (model, batch) -> scalar


def takes_model(loss: Loss) -> bool:
    """Whether a loss is to be called as ``loss(model, batch)``, by its first parameter's name."""
    try:
        return next(iter(inspect.signature(loss).parameters), "") == "model"
    except (TypeError, ValueError):  # built-in functions may have no signature
        return False


def scalar_loss(loss: Loss, outputs: Tensor | nn.Module, targets: Batch) -> Tensor:
    """Apply a loss that may be a stranger's, to outputs and targets or to a model and a batch.

    Raises:
        InputError: it raises, or does not return a scalar tensor.
    """
    try:
        value = loss(outputs, targets)
    except InputError:
        raise
    except Exception as error:  # a stranger's loss may raise anything
        if is_out_of_memory(error):
            raise
        taken = (
            f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
            if isinstance(outputs, Tensor)
            else "the model and a batch"
        )
        raise InputError(f"the loss does not take {taken}: {first_line(error)}") from error
    if not isinstance(value, Tensor):
        raise InputError(f"the loss returns a {type(value).__name__}, not a scalar tensor")
    if value.numel() != 1:
        raise InputError(f"the loss is not scalar: its shape is {tuple(value.shape)}")
    return value if value.ndim == 0 else value.reshape(())


def right_labels(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Which class labels are right, of the targets' shape.

    Args:
        outputs: logits, shape (B, C, …).
        targets: class labels, shape (B, …); anything else gives ``None``.
    """
    if not isinstance(targets, Tensor) or targets.is_floating_point() or outputs.ndim < 2:
        return None
    labels = outputs.argmax(dim=1)
    if labels.shape != targets.shape or outputs.shape[1] < 2:
        return None
    return labels == targets


def accuracy(outputs: Tensor, targets: Tensor) -> float | None:
    """The share of right class labels; see :func:`right_labels`."""
    right = right_labels(outputs, targets)
    return None if right is None else float(right.double().mean())
