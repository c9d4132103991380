"""How much a method's gradient scatters over its own noise, at given weights and minibatch."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.methods.base import Method
from ssgd_analysis.methods.loss_scale import SMALLEST
from ssgd_analysis.methods.task import Overflow
from ssgd_analysis.weights import borrowed_state


def noise_variance(
    method: Method, inputs: Tensor, targets: Tensor, draws: int, *, elapsed: float = 0.0
) -> dict[str, float]:
    """Mean and variance of the gradient that a method hands to its base optimizer.

    The gradient is taken for ``draws`` successive steps' noise on one minibatch; nothing is
    updated, and everything is as before afterwards: weights, buffers, gradients, the method's
    state, and the task's counts. An average over R independent draws of a gradient with total
    variance V has total variance V / R; so methods of different cost are compared by V × passes.

    Args:
        method: its noise must depend on ``task.step`` alone. Where consecutive steps share a
            draw (``alternating``), the variance is that of one step, up to a share 1 / draws.
        inputs: shape (B, …).
        targets: shape (B, …).
        draws: independent gradients, at least 2.
        elapsed: share of training done, for schedules of the noise.

    Returns:
        ``{"mean_square": ‖E g‖², "variance": trace of the covariance of g, "stderr": of the
        variance}``; both estimates are unbiased, so ``mean_square`` may come out below zero.
        Units: squared nats per squared weight unit.

    Raises:
        InputError: fewer than two draws.
        WorkError: float16 gradients that are not finite at any loss scale.

    Example:
        >>> from ssgd_analysis.methods import METHODS, Task
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> task = Task(model, torch.nn.functional.mse_loss, optimizer, batch_size=2)
        >>> method = METHODS["s-sgd"](task, METHODS["s-sgd"].Settings())
        >>> found = noise_variance(method, torch.ones(2, 3), torch.ones(2, 1), draws=4)
        >>> found["variance"] < 1e-6  # on a quadratic the pair cancels
        True
    """
    if draws < 2:
        raise InputError(f"draws={draws}: a variance needs at least 2")
    parameters = [parameter for _, parameter in method.task.parameters]
    gradients = []
    with _undone(method):
        begin = method.task.step
        for draw in range(draws):
            method.task.step = begin + draw
            for parameter in parameters:
                parameter.grad = None
            _gradient(method, inputs, targets, elapsed)
            gradients.append(_flat_gradient(parameters))
    mean = torch.stack(gradients).mean(dim=0)
    spreads = torch.stack([(gradient - mean).square().sum() for gradient in gradients])
    variance = float(spreads.sum()) / (draws - 1)
    return {
        "mean_square": float(mean @ mean) - variance / draws,
        "variance": variance,
        "stderr": float(spreads.std()) / draws**0.5,
    }


def _gradient(method: Method, inputs: Tensor, targets: Tensor, elapsed: float) -> None:
    """Leave a step's gradient; a float16 loss scale that is too large is halved until it fits."""
    task, state = method.task, copy.deepcopy(method.state_dict())
    while True:
        try:
            method.gradient(inputs, targets, elapsed)
        except Overflow:
            method.load_state_dict(state)
            assert task.scale is not None  # nothing else overflows
            task.scale.shrink()
            if task.scale.value < SMALLEST:
                raise WorkError("a gradient is not finite at any loss scale") from None
            for _, parameter in task.parameters:
                parameter.grad = None
        else:
            return


def _flat_gradient(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Shape (P,), float64, on the CPU; zero where there is none."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([grad.detach().reshape(-1).double().cpu() for grad in grads])


@contextmanager
def _undone(method: Method) -> Iterator[None]:
    """What the passes change comes back."""
    task = method.task
    kept = [(parameter, parameter.grad) for parameter in task.model.parameters()]
    counts, state = (task.step, task.examples, task.peak_lr), copy.deepcopy(method.state_dict())
    scale = task.state_dict()
    try:
        with borrowed_state(task.model):
            yield
    finally:
        task.step, task.examples, task.peak_lr = counts
        method.load_state_dict(state)
        task.load_state_dict(scale)
        for parameter, grad in kept:
            parameter.grad = grad
