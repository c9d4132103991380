"""How much a method's gradient scatters over its own noise, at given weights and minibatch."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.methods.base import Method
from ssgd_analysis.methods.loss_scale import SMALLEST, Overflow
from ssgd_analysis.methods.when import START, When
from ssgd_analysis.weights import borrowed_state


def noise_variance(
    method: Method, batch: Batch, draws: int, *, when: When = START
) -> dict[str, float]:
    """Mean and variance of the gradient that a method hands to its base optimizer.

    The gradient is taken with the noise of ``draws`` successive steps on one minibatch. Nothing
    is updated, and everything is as before afterwards: weights, buffers, gradients, the method's
    state, and the count of passes. An average over R independent draws of a gradient with total
    variance V has total variance V / R; so methods of different cost are compared by V × passes.

    Args:
        method: its noise must depend on the number of the step alone. Where consecutive steps
            share a draw, the variance is that of one step, up to a share 1 / draws.
        batch: the minibatch: ``(inputs, targets)``, or what a loss of (model, batch) takes.
        draws: independent gradients, at least 2.
        when: moment of the training, for schedules of the noise; its step is the first one.

    Returns:
        ``{"mean_square": ‖E g‖², "variance": trace of the covariance of g, "stderr": of the
        variance}``; both estimates are unbiased, so ``mean_square`` may come out below zero.
        Units: squared nats per squared weight unit.

    Raises:
        InputError: fewer than two draws.
        WorkError: float16 gradients that are not finite at any loss scale.

    Example:
        >>> from ssgd_analysis.methods import METHODS, Passes
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> passes = Passes(model, torch.nn.functional.mse_loss, optimizer, batch_size=2)
        >>> method = METHODS["s-sgd"](passes, METHODS["s-sgd"].Settings())
        >>> found = noise_variance(method, (torch.ones(2, 3), torch.ones(2, 1)), draws=4)
        >>> found["variance"] < 1e-6  # on a quadratic the pair cancels
        True
    """
    if draws < 2:
        raise InputError(f"draws={draws}: a variance needs at least 2")
    parameters = [parameter for _, parameter in method.passes.parameters]
    gradients = []
    with _undone(method):
        for draw in range(draws):
            for parameter in parameters:
                parameter.grad = None
            moment = dataclasses.replace(when, step=when.step + draw)
            _gradient(method, batch, moment)
            gradients.append(_flat_gradient(parameters))
    mean = torch.stack(gradients).mean(dim=0)
    spreads = torch.stack([(gradient - mean).square().sum() for gradient in gradients])
    variance = float(spreads.sum()) / (draws - 1)
    return {
        "mean_square": float(mean @ mean) - variance / draws,
        "variance": variance,
        "stderr": float(spreads.std()) / draws**0.5,
    }


def _gradient(method: Method, batch: Batch, when: When) -> None:
    """Leave a step's gradient; a float16 loss scale that is too large is halved until it fits."""
    passes, state = method.passes, copy.deepcopy(method.state_dict())
    while True:
        try:
            method.gradient(batch, when)
        except Overflow:
            method.load_state_dict(state)
            assert passes.scale is not None  # nothing else overflows
            passes.scale.shrink()
            if passes.scale.value < SMALLEST:
                raise WorkError("a gradient is not finite at any loss scale") from None
            for _, parameter in passes.parameters:
                parameter.grad = None
        else:
            return


def _flat_gradient(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Shape (P,), float64, on the CPU; zero where there is none."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([grad.detach().reshape(-1).double().cpu() for grad in grads])


@contextmanager
def _undone(method: Method) -> Iterator[None]:
    """Bring back everything that the passes inside change."""
    passes = method.passes
    grads = [(parameter, parameter.grad) for parameter in passes.model.parameters()]
    state, count = copy.deepcopy(method.state_dict()), passes.state_dict()
    try:
        with borrowed_state(passes.model):
            yield
    finally:
        method.load_state_dict(state)
        passes.load_state_dict(count)
        for parameter, grad in grads:
            parameter.grad = grad
