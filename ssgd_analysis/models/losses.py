"""Losses: outputs and targets in, the mean over the batch out."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssgd_analysis import references
from ssgd_analysis.errors import InputError, unknown

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits against class labels.

    Args:
        outputs: logits, shape (B, C, …).
        targets: class labels, shape (B, …), int64; −100 marks positions that do not count.

    Returns:
        Mean over the batch and over the positions that count, nats, scalar.
    """
    return F.cross_entropy(outputs, targets)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over the batch and the outputs; class labels count as one-hot.

    Args:
        outputs: shape (B, …).
        targets: the same number of values, or class labels of shape (B,) for outputs (B, C).

    Returns:
        Mean of the squared differences, scalar.

    Raises:
        InputError: shapes that do not fit. torch would broadcast (B, 1) against (B,) to (B, B).
    """
    if not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    if outputs.numel() != targets.numel() or len(outputs) != len(targets):
        raise InputError(
            f"mse: outputs of shape {tuple(outputs.shape)} do not fit targets of shape"
            f" {tuple(targets.shape)}"
        )
    return F.mse_loss(outputs, targets.reshape(outputs.shape))


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}


def load_loss(name: str) -> Loss:
    """A loss by registered name or reference.

    Raises:
        InputError: an unknown name or a reference that fails.
    """
    if name in LOSSES:
        return LOSSES[name]
    if references.is_reference(name):
        return references.resolve("loss", name)
    raise unknown("loss", name, LOSSES)


def placed_loss(name: str, device: str, dtype: torch.dtype) -> Loss:
    """As :func:`load_loss`; what a loss module holds (class weights) is put where the model is.

    Raises:
        InputError: an unknown name or a reference that fails.
    """
    loss = load_loss(name)
    return copy.deepcopy(loss).to(device, dtype) if isinstance(loss, nn.Module) else loss


def load_count(name: str | None) -> Callable[..., int] | None:
    """A function of a batch that counts its examples, by reference; ``None`` stays.

    Raises:
        InputError: a reference that fails.
    """
    if not name:
        return None
    if not references.is_reference(name):
        raise InputError(
            f"--count '{name}' should be a reference: module:function or path.py:function"
        )
    return references.resolve("count", name)
