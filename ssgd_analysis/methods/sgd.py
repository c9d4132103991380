"""The baseline."""

from torch import Tensor

from ssgd_analysis.methods.base import Method


class SGD(Method):
    """Plain minibatch gradient: one pass a step, then the base optimizer."""

    def step(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """One gradient, one update; see :meth:`Method.step`."""
        self.task.optimizer.zero_grad()
        loss = self.task.backward(inputs, targets)
        self.task.optimizer.step()
        return loss
