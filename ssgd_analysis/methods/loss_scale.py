"""float16 gradients: the loss is scaled up, so that small ones do not vanish."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ssgd_analysis.methods.base import Method
from ssgd_analysis.methods.task import Overflow

SMALLEST = 2.0**-24  # a gradient that is not finite here is so at any scale


def attempt(method: Method, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
    """A step that is skipped where a scaled gradient is not finite; else ``method.step``.

    A skipped step halves the scale and leaves weights, buffers, base optimizer and the method's
    own state as they were.

    Args:
        method: makes the step.
        inputs: shape (B, …).
        targets: shape (B, …).
        elapsed: share of the training done, in [0, 1).

    Returns:
        The loss that the step saw; infinite where no scale makes the gradients finite.
    """
    task = method.task
    if task.scale is None:
        return method.step(inputs, targets, elapsed)
    state = copy.deepcopy(method.state_dict())
    buffers = [(buffer, buffer.clone()) for buffer in task.model.buffers()]
    try:
        return method.step(inputs, targets, elapsed)
    except Overflow as overflow:
        method.load_state_dict(state)
        _restore(buffers)
        task.optimizer.zero_grad()
        task.scale.shrink()
        return overflow.loss if task.scale.value >= SMALLEST else math.inf


@torch.no_grad()
def _restore(buffers: Iterable[tuple[Tensor, Tensor]]) -> None:
    for buffer, before in buffers:
        buffer.copy_(before)
