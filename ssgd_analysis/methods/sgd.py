"""The baseline."""

from torch import Tensor

from ssgd_analysis.methods.base import Method


class SGD(Method):
    """Plain minibatch gradient: one pass a step, then the base optimizer."""

    def gradient(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """The minibatch's gradient; see :meth:`Method.gradient`."""
        return self.task.backward(inputs, targets)
