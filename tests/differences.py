"""The dense Hessian of a loss by central differences of its gradients, in float64."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching


def hessian(
    model: nn.Module, value: Callable[[nn.Module], Tensor], step: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Hessian (P, P) and gradient (P,) of ``value(model)`` at the model's weights.

    The model is copied to float64 in training mode: no module of the tests acts differently there.
    """
    model = copy.deepcopy(model).double()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient() -> Tensor:
        parts = torch.autograd.grad(value(model), parameters, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in parts])

    columns = []
    for parameter in parameters:
        flat = parameter.data.view(-1)
        for index in range(flat.numel()):
            clean = flat[index].item()
            flat[index] = clean + step
            ahead = gradient()
            flat[index] = clean - step
            columns.append((ahead - gradient()) / (2 * step))
            flat[index] = clean
    whole = torch.stack(columns)
    return (whole + whole.T) / 2, gradient()


def weighted(
    loss: Callable[..., Tensor], batches: Sequence, weights: Sequence[float]
) -> Callable[[nn.Module], Tensor]:
    """Σ w_b loss_b / Σ w_b of ``loss(model, batch)``, batches in float64."""
    cast = [batching.to(batch, "cpu", torch.float64) for batch in batches]

    def value(model: nn.Module) -> Tensor:
        terms = [w * loss(model, batch) for w, batch in zip(weights, cast, strict=True)]
        return torch.stack(terms).sum() / sum(weights)

    return value
