"""The contract of an operator: a symmetric linear map with a cost."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssgd_analysis.problem import Batch, Loss, Problem
from ssgd_analysis.weights import flattened


class Operator(ABC):
    """A symmetric map of R^P that is a weighted mean of parts, one a batch of examples.

    ``operator @ v`` takes one vector (P,) or a block (P, K). ``products`` counts the columns
    multiplied so far.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    products: int = 0

    @abstractmethod
    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        """For each batch its weight (they sum to one) and its product with ``block``, (P, K)."""

    def parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Each batch's weight and product, for errors over examples; counted as one product.

        Args:
            block: shape (P, K).
        """
        if block.ndim != 2 or block.shape[0] != self.shape[0]:
            raise ValueError(f"shape {tuple(block.shape)} does not fit {self.shape}")
        self.products += block.shape[1]
        yield from self._parts(block)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with one vector (P,) or a block (P, K).

        Raises:
            ValueError: a shape that does not fit.
        """
        block = vectors[:, None] if vectors.ndim == 1 else vectors
        total = torch.zeros_like(block)
        for weight, part in self.parts(block):
            total.add_(part, alpha=weight)
        return total[:, 0] if vectors.ndim == 1 else total

    def scipy(self) -> LinearOperator:
        """The same map for scipy, on numpy arrays of the same precision."""

        def multiply(array: np.ndarray) -> np.ndarray:
            whole = np.array(array, order="C")  # torch takes no reversed or read-only arrays
            vectors = torch.as_tensor(whole, dtype=self.dtype, device=self.device)
            return (self @ vectors).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(
            self.shape,
            matvec=lambda v: multiply(v.reshape(-1)),
            rmatvec=lambda v: multiply(v.reshape(-1)),
            matmat=multiply,
            rmatmat=multiply,
            dtype=dtype,
        )


class DenseOperator(Operator):
    """A symmetric matrix as an operator, for planted spectra and small references.

    Args:
        matrix: shape (P, P), symmetric.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        yield 1.0, self.matrix @ block


class ProblemOperator(Operator):
    """An operator over the weights of a model.

    Args:
        model: any ``nn.Module``; evaluation mode is set during a product and given back.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: iterable of ``(inputs, targets)`` on the model's device, read once.

    Raises:
        InputError: no data, or no parameter that requires gradients.
    """

    def __init__(self, model: nn.Module, loss: Loss, batches: Iterable[Batch]) -> None:
        self.problem = Problem(model, loss, batches)
        self.shape = (self.problem.n_parameters,) * 2
        self.dtype, self.device = self.problem.dtype, self.problem.device

    @abstractmethod
    def _multiplier(
        self, inputs: Tensor, targets: Tensor
    ) -> Callable[[list[Tensor]], list[Tensor]]:
        """Build one batch's graph once; return the product with one vector, split by parameter."""

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        shares = self.problem.shares
        for share, (inputs, targets) in zip(shares, self.problem.batches, strict=True):
            # Fused attention has no double backward (pytorch issue 116350); the plain kernel has.
            with (
                self.problem.evaluating(),
                torch.enable_grad(),
                sdpa_kernel(SDPBackend.MATH),
            ):
                multiply = self._multiplier(inputs, targets)
                columns = [
                    flattened(multiply(self.problem.split(column))).detach() for column in block.T
                ]
                del multiply  # the graph is not kept while the caller works
            yield share, torch.stack(columns, dim=1)

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters, in the order in which vectors are laid out."""
        return list(self.problem.parameters.values())


def linear_gradient(
    outputs: list[Tensor], inputs: list[Tensor], vectors: list[Tensor]
) -> list[Tensor]:
    """The gradient of ⟨outputs, vectors⟩ by ``inputs``; the graph is kept for the next vector.

    Outputs that depend on no input (a model that is linear in some weights has a constant
    gradient there) contribute zero, where autograd alone would raise.
    """
    kept = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not kept:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(
        torch.autograd.grad(
            [o for o, _ in kept],
            inputs,
            grad_outputs=[v for _, v in kept],
            retain_graph=True,
            materialize_grads=True,
        )
    )
