"""The sum of several passes' gradients."""

from collections.abc import Iterable

import torch
from torch import nn


class GradientSum:
    """Keeps the gradients of earlier passes while a later pass makes its own.

    The buffers are made before the first pass. Gradients left in ``.grad`` between two passes
    lie among the freed activations and split the allocator's heap: on the CPU the second
    forward pass then took a quarter longer (``benchmarks/training.py``, ResNet-20).

    Args:
        parameters: whose gradients to sum.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.sums = [torch.empty_like(parameter) for parameter in self.parameters]
        self.filled = [False] * len(self.sums)

    def take(self) -> None:
        """Move every ``.grad`` into the sum; ``.grad`` is ``None`` after."""
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if self.filled[index]:
                self.sums[index].add_(parameter.grad)
            else:
                self.sums[index].copy_(parameter.grad)
                self.filled[index] = True
            parameter.grad = None

    def give_back(self) -> None:
        """Add the sum to every ``.grad``; one that no pass made stays ``None``."""
        for index, parameter in enumerate(self.parameters):
            if not self.filled[index]:
                continue
            if parameter.grad is None:
                parameter.grad = self.sums[index]
            else:
                parameter.grad.add_(self.sums[index])
