"""The sum of several passes' gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError


def match_strides(parameters: Iterable[Tensor]) -> None:
    """Give each ``.grad`` the strides of its parameter.

    On the CPU torch's fused optimizers walk through memory, and would pair entries wrongly.
    """
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None and grad.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(grad)


def refuse_sparse(grads: Iterable[Tensor]) -> None:
    """Refuse sparse gradients: those of several passes are combined as dense tensors.

    Raises:
        InputError: a gradient is sparse.
    """
    if any(grad.layout != torch.strided for grad in grads):
        raise InputError("sparse gradients cannot be used here: nn.Embedding(..., sparse=False)")


class GradientSum:
    """The sum of the gradients of several passes, in buffers made before the first one.

    Gradients left in ``.grad`` between two passes lie among the freed activations and split the
    allocator's heap: on the CPU the second forward pass then took a quarter longer
    (``benchmarks/training.py``, ResNet-20).

    Args:
        parameters: whose gradients to sum.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.sums = [torch.empty_like(parameter) for parameter in self.parameters]
        self.filled: set[int] = set()

    @torch.no_grad()
    def take(self) -> None:
        """Move every ``.grad`` into the sum; ``.grad`` is ``None`` after."""
        found = self._grads()
        refuse_sparse(found.values())
        new = [i for i in found if i not in self.filled]
        old = [i for i in found if i in self.filled]
        if new:
            torch._foreach_copy_([self.sums[i] for i in new], [found[i] for i in new])
        if old:
            torch._foreach_add_([self.sums[i] for i in old], [found[i] for i in old])
        self.filled.update(found)
        for i in found:
            self.parameters[i].grad = None

    @torch.no_grad()
    def give_back(self) -> None:
        """Add what :meth:`take` took to every ``.grad``; one that no pass made stays ``None``."""
        found = self._grads()
        both = [i for i in found if i in self.filled]
        if both:
            torch._foreach_add_([found[i] for i in both], [self.sums[i] for i in both])
        for i in self.filled.difference(both):
            self.parameters[i].grad = self.sums[i]

    def _grads(self) -> dict[int, Tensor]:
        """The gradients that there are, by the parameter's index."""
        grads = [parameter.grad for parameter in self.parameters]
        return {i: grad for i, grad in enumerate(grads) if grad is not None}
