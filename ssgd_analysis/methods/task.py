"""What a method works on, and the counting of its passes."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.loss import Loss, scalar_loss, takes_model

FORWARD_SHARE = 1 / 3  # of a forward-backward pass: backward costs about two forwards


class Task:
    """What a method works on: the model, its loss and the base optimizer; counts the passes.

    Args:
        model: in training mode while steps are made.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        optimizer: any ``torch.optim.Optimizer`` over the model's parameters.
        batch_size: examples of a full minibatch: what one pass counts as.
        seed: of the run; a method derives its own streams from it.
        autocast: dtype for the forward pass, or ``None`` for the parameters' own.

    Raises:
        InputError: a loss of (model, batch).
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        seed: int = 0,
        autocast: torch.dtype | None = None,
    ) -> None:
        if takes_model(loss):
            raise InputError(
                "training needs a loss of (outputs, targets): a loss of (model, batch) can only be"
                " measured, as `sharpness` does"
            )
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.batch_size, self.seed, self.autocast = batch_size, seed, autocast
        self.step = 0  # updates made so far
        self.examples = 0.0  # examples that went forward and backward so far
        # Makes the passes of `backward` instead of this task, where runs are stacked: the same
        # arguments, adds the same to `.grad`, returns the loss.
        self.run_pass: Callable[[Tensor, Tensor, float], float] | None = None

    @property
    def gradients(self) -> float:
        """Forward-backward passes over a minibatch so far; a forward pass alone is a third."""
        passes = self.examples / self.batch_size
        return int(passes) if passes == int(passes) else round(passes, 6)

    @property
    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that require gradients, each once."""
        return [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's outputs, in the run's precision; not counted."""
        device = inputs.device.type
        with nullcontext() if self.autocast is None else torch.autocast(device, self.autocast):
            return self.model(inputs)

    def update(self) -> None:
        """The base optimizer steps with what is in ``.grad``."""
        self.optimizer.step()

    def backward(self, inputs: Tensor, targets: Tensor, share: float = 1.0) -> float:
        """One forward-backward pass: adds ``share`` × the gradient to each ``.grad``.

        Returns:
            The minibatch's loss.
        """
        self.examples += len(inputs)
        return (self.run_pass or self.pass_alone)(inputs, targets, share)

    def pass_alone(self, inputs: Tensor, targets: Tensor, share: float) -> float:
        """The pass of :meth:`backward`, uncounted."""
        outputs = self.forward(inputs)
        loss = scalar_loss(self.loss, outputs.float() if self.autocast else outputs, targets)
        (loss * share if share != 1 else loss).backward()
        return loss.item()
