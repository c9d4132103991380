"""A problem: a model, a loss and batches. Everything that measures takes one."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.weights import evaluation_mode

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


class Problem:
    """The mean loss over fixed examples as a function of the model's weights.

    The mean is over examples, exact also where the last batch is short: batch b of n_b
    examples counts n_b / N. The parameters are those that require gradients, each once (tied
    weights are one parameter), in the order of ``model.named_parameters()``. Evaluation mode
    is set while a method of this class, or :meth:`evaluating`, runs; mode, buffers and
    gradients of the model come back as they were.

    Args:
        model: returns outputs of shape (B, …).
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs, read once and kept; they must lie on the model's
            device.

    Raises:
        InputError: no batches, an empty batch, or no parameter that requires gradients.
    """

    def __init__(self, model: nn.Module, loss: Loss, batches: Iterable[Batch]) -> None:
        self.model = model
        self.loss = loss
        self.batches: list[Batch] = [(inputs, targets) for inputs, targets in batches]
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InputError("the model has no parameters that require gradients")
        sizes = [len(inputs) for inputs, _ in self.batches]
        if not sizes or min(sizes) == 0:
            raise InputError("the data is empty: no batch, or a batch without examples")
        self.n_samples = sum(sizes)
        self.shares = [size / self.n_samples for size in sizes]

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
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                raise
            raise InputError(
                f"the model does not take inputs of shape {tuple(inputs.shape)}: {_line(error)}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise InputError(f"the model returns a {type(outputs).__name__}, not a tensor")
        return outputs

    def batch_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of one batch.

        Raises:
            InputError: the loss raises, or is not a scalar tensor.
        """
        return scalar_loss(self.loss, outputs, targets)

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector over all parameters, (P,), as one tensor of each parameter's shape."""
        parameters = list(self.parameters.values())
        pieces = vector.split([parameter.numel() for parameter in parameters])
        return [piece.reshape(p.shape) for piece, p in zip(pieces, parameters, strict=True)]

    def mean(self, values: Iterable[float]) -> float:
        """The mean over all examples of one value for each batch."""
        return math.fsum(s * v for s, v in zip(self.shares, values, strict=True))

    def weight_norm(self) -> float:
        """L2 norm over all parameters, in float64."""
        squares = [p.detach().double().square().sum().item() for p in self.parameters.values()]
        return math.sqrt(math.fsum(squares))

    def batch_losses(self) -> list[float]:
        """The mean loss of each batch at the present weights, no gradients."""
        with self.evaluating(), torch.no_grad():
            return [float(self.batch_loss(self.outputs(x), y)) for x, y in self.batches]

    def mean_loss(self) -> float:
        """The mean loss over all examples at the present weights."""
        return self.mean(self.batch_losses())

    def evaluate(self) -> tuple[float, float | None]:
        """Mean loss and accuracy over all examples.

        Returns:
            The loss, and the share of right class labels (``None`` where the targets are no
            class labels).
        """
        losses: list[float] = []
        rights: list[float | None] = []
        with self.evaluating(), torch.no_grad():
            for inputs, targets in self.batches:
                outputs = self.outputs(inputs)
                losses.append(float(self.batch_loss(outputs, targets)))
                rights.append(accuracy(outputs, targets))
        known = [right for right in rights if right is not None]
        right = self.mean(known) if len(known) == len(rights) else None
        return self.mean(losses), right

    def gradient(self) -> list[Tensor]:
        """The gradient of the mean loss, one tensor for each parameter; ``.grad`` is untouched."""
        parameters = list(self.parameters.values())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        with self.evaluating(), torch.enable_grad():
            for share, (inputs, targets) in zip(self.shares, self.batches, strict=True):
                loss = self.batch_loss(self.outputs(inputs), targets)
                for sum_, part in zip(
                    total,
                    torch.autograd.grad(loss, parameters, materialize_grads=True),
                    strict=True,
                ):
                    sum_.add_(part, alpha=share)
        return total

    def check(self) -> None:
        """Evaluate the first batch once, so that unfit parts are refused before long work.

        Raises:
            InputError: shapes that do not fit, a loss that is not a scalar, labels out of
                range.
            WorkError: the loss is not finite at the present weights.
        """
        inputs, targets = self.batches[0]
        with self.evaluating(), torch.no_grad():
            outputs = self.outputs(inputs)
            self._check_labels(outputs)
            loss = self.batch_loss(outputs, targets)
        if not math.isfinite(float(loss)):
            raise WorkError(f"the loss is {float(loss)} at these weights")

    def _check_labels(self, outputs: Tensor) -> None:
        """Cross-entropy's labels count from 0 to the number of outputs; other losses may differ."""
        labels = [targets for _, targets in self.batches]
        if getattr(self.loss, "__name__", "") != "cross_entropy" or labels[0].is_floating_point():
            return
        low, high = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
        if low < 0:
            raise InputError(f"label {low} is out of range: labels count from 0")
        if outputs.ndim > 1 and high >= outputs.shape[1]:
            raise InputError(
                f"label {high} is out of range: the model has {outputs.shape[1]} outputs"
            )


def scalar_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Apply a loss that may be a stranger's.

    Raises:
        InputError: it raises, or does not return a scalar tensor.
    """
    try:
        value = loss(outputs, targets)
    except InputError:
        raise
    except Exception as error:  # a stranger's loss may raise anything
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        raise InputError(
            f"the loss does not take outputs of shape {tuple(outputs.shape)} and targets of shape"
            f" {tuple(targets.shape)}: {_line(error)}"
        ) from error
    if not isinstance(value, Tensor):
        raise InputError(f"the loss returns a {type(value).__name__}, not a scalar tensor")
    if value.numel() != 1:
        raise InputError(f"the loss is not scalar: its shape is {tuple(value.shape)}")
    return value.reshape(())


def accuracy(outputs: Tensor, targets: Tensor) -> float | None:
    """The share of right class labels.

    Args:
        outputs: logits, shape (B, C, …).
        targets: class labels, shape (B, …); anything else gives ``None``.
    """
    if targets.is_floating_point() or outputs.ndim != targets.ndim + 1 or outputs.shape[1] < 2:
        return None
    return float((outputs.argmax(dim=1) == targets).double().mean())


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
