"""Forward and backward passes of a chain of linear layers, without autograd's bookkeeping."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ssgd_analysis.problem.loss import Loss
from ssgd_analysis.weights.borrowed import same_bits

aten = torch.ops.aten
LINEAR, RELU, TANH = nn.Linear, nn.ReLU, nn.Tanh
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Chain:
    """The gradient of the mean cross-entropy of ``Flatten``, ``Linear``, ``ReLU`` and ``Tanh``.

    It calls the same kernels in the same order as autograd, so that loss and gradients have the
    same bits; the first pass over minibatches of each shape is held against autograd's. On a
    small network autograd's bookkeeping takes longer than the arithmetic.

    Args:
        model: the network.
        layers: its chain behind the ``Flatten``, if it has one; no layer stands in it twice.
    """

    def __init__(self, model: nn.Module, layers: list[nn.Module]) -> None:
        self.model, self.layers = model, layers
        self.parameters = [p for layer in layers for p in layer.parameters()]
        self.hooks = [getattr(each, name) for each in model.modules() for name in HOOKS]
        self.seeds: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}
        self.agrees: dict[Any, bool] = {}  # shapes of a minibatch: whether the bits are autograd's

    def __call__(self, inputs: Tensor, targets: Tensor, share: float) -> float | None:
        """Add ``share`` × the gradient to each ``.grad``.

        Returns:
            The loss, or ``None`` where this pass must be autograd's; nothing was done then.
        """
        if inputs.ndim < 2 or targets.ndim != 1 or self._watched():
            return None
        key = (inputs.shape, inputs.dtype, targets.dtype)
        if not self.agrees.get(key, True):
            return None
        try:
            loss, grads = self._pass(inputs.flatten(1), targets, share)
        except (RuntimeError, IndexError):  # autograd's pass will say what is wrong
            return None
        if key not in self.agrees:
            self.agrees[key] = self._is_autograd(inputs, targets, share, [loss, *grads])
            return self(inputs, targets, share)
        for parameter, grad in zip(self.parameters, grads, strict=True):
            if parameter.grad is None:
                parameter.grad = grad
            else:
                parameter.grad.add_(grad)
        return loss.item()

    def _watched(self) -> bool:
        """Whether someone's hooks or a frozen parameter need autograd's own pass."""
        if any(self.hooks) or _has_any_global_hook():
            return True
        if torch.is_anomaly_enabled() or not torch.is_grad_enabled():
            return True
        if torch.is_autocast_enabled(self.parameters[0].device.type):
            return True
        return any(
            p._backward_hooks or p._post_accumulate_grad_hooks or not p.requires_grad
            for p in self.parameters
        )

    @torch.no_grad()
    def _pass(self, x: Tensor, targets: Tensor, share: float) -> tuple[Tensor, list[Tensor]]:
        """The loss, and share × its gradient for each of the parameters."""
        held: list[Tensor] = []  # the input of a linear layer, the output of the others
        for layer in self.layers:
            if type(layer) is LINEAR:
                held.append(x)
                x = F.linear(x, layer.weight, layer.bias)
            else:
                x = torch.relu(x) if type(layer) is RELU else torch.tanh(x)
                held.append(x)
        logs = torch.log_softmax(x, 1)
        loss, total = aten.nll_loss_forward.default(logs, targets, None, 1, -100)
        grad = self._seed(share, loss)
        grad = aten.nll_loss_backward.default(grad, logs, targets, None, 1, -100, total)
        grad = aten._log_softmax_backward_data.default(grad, logs, 1, logs.dtype)
        return loss, self._backward(grad, held)

    def _backward(self, grad: Tensor, held: list[Tensor]) -> list[Tensor]:
        """From the gradient at the outputs to those of the parameters, in their order."""
        found: list[Tensor] = []
        for index in range(len(held) - 1, -1, -1):
            layer, saved = self.layers[index], held[index]
            if type(layer) is LINEAR:
                if layer.bias is not None:
                    found.append(grad.sum(0))
                found.append(torch.mm(grad.t(), saved))
                if index:
                    grad = torch.mm(grad, layer.weight)
            elif type(layer) is RELU:
                grad = aten.threshold_backward.default(grad, saved, 0)
            else:
                grad = aten.tanh_backward.default(grad, saved)
        found.reverse()
        return found

    def _seed(self, share: float, loss: Tensor) -> Tensor:
        key = (share, loss.dtype, loss.device)
        if key not in self.seeds:
            self.seeds[key] = torch.full_like(loss, share)
        return self.seeds[key]

    def _is_autograd(
        self, inputs: Tensor, targets: Tensor, share: float, found: list[Tensor]
    ) -> bool:
        """Whether autograd finds the same bits."""
        with torch.enable_grad():
            loss = F.cross_entropy(self.model(inputs), targets)
            scaled = loss * share if share != 1 else loss
            grads = torch.autograd.grad(scaled, self.parameters, allow_unused=True)
        if any(grad is None for grad in grads):
            return False
        return all(map(same_bits, [loss.detach(), *grads], found))


def chain_of(model: nn.Module, loss: Loss, cross_entropy: tuple[Loss, ...]) -> Chain | None:
    """The model's chain, or ``None`` if it is another model, or trained with another loss.

    Args:
        model: only torch's own layers count, in an ``nn.Sequential``.
        loss: of the training.
        cross_entropy: the losses that are the plain mean cross-entropy.
    """
    layers = list(_unpacked(model))
    if layers and type(layers[0]) is nn.Flatten:
        flatten = layers.pop(0)
        if (flatten.start_dim, flatten.end_dim) != (1, -1):
            return None
    supported = all(type(each) in (LINEAR, RELU, TANH) for each in layers)
    plain = supported and not any("forward" in vars(each) for each in layers)
    parameters = [id(p) for each in layers for p in each.parameters()]
    if loss not in cross_entropy or not plain or not layers or type(layers[0]) is not LINEAR:
        return None
    if len(set(parameters)) < len(parameters):
        return None
    return Chain(model, layers)


def _unpacked(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested ``nn.Sequential``, in order."""
    if type(model) is not nn.Sequential:
        yield model
        return
    for each in model:
        yield from _unpacked(each)
