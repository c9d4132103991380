"""One batch's symmetric matrix over the weights of a problem: all that products know of it."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.devices import plain_python
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import filters_of

# The product with a vector that has entries for some parameters only, given by their positions;
# the result has the same ones.
Multiply = Callable[[list[Tensor], Sequence[int]], list[Tensor]]


class BatchMatrix(ABC):
    """The matrix of any one batch, as three ways to multiply it by a vector.

    Args:
        problem: model, loss and batches.

    Raises:
        InputError: no problem, or parameters that have no matrix of this kind: complex ones,
            sparse gradients, gradients changed by hooks.
    """

    no_differences = ""  # why products by differences are not there, or are another matrix's

    def __init__(self, problem: Problem) -> None:
        if not isinstance(problem, Problem):
            raise InputError(
                f"an operator takes a Problem, not a {type(problem).__name__}:"
                " Problem(model, loss, batches)"
            )
        _check_parameters(problem)
        self.problem = problem
        self.parameters = list(problem.parameters.values())
        self.filters = filters_of(problem.model, self.parameters)
        self.dtype, self.device = problem.dtype, problem.device
        self.precision: torch.dtype | None = None  # of the loss; else the problem's

    @abstractmethod
    def build_product(self, batch: Batch) -> tuple[Sequence[Tensor], Multiply]:
        """Build one batch's graph: what is differentiated again, and the product by that."""

    @abstractmethod
    def functional_product(
        self, weights: Sequence[Tensor], vector: Sequence[Tensor], batch: Batch
    ) -> Sequence[Tensor]:
        """The same product as a pure function of the weights, by ``torch.func``."""

    @abstractmethod
    def difference(self, batch: Batch, move: Callable[[int], None], step: float) -> list[Tensor]:
        """The same product by finite differences.

        Args:
            batch: the examples.
            move: puts the weights at w + sign · step · v, for a sign of 1, −1 or 0.
            step: of the difference.
        """

    def in_float64(self) -> Self:
        """The matrix of a copy of the model in float64, for differences; batches are cast later.

        Raises:
            Exception: whatever a user's model or loss raises that does not allow it.
        """
        own = self.problem
        if own.precision == torch.float64:  # no copy: the weights come back bit for bit
            return self
        problem = copy.copy(own)
        problem.model = copy.deepcopy(own.model)
        if isinstance(problem.loss, nn.Module):
            problem.loss = copy.deepcopy(problem.loss).to(torch.float64)
        memory = {p.data_ptr() for p in own.model.parameters()}
        if memory & {p.data_ptr() for p in problem.model.parameters()}:
            raise TypeError("copying the model returns the model itself")
        problem.model.to(torch.float64)
        named = dict(problem.model.named_parameters())
        problem.parameters = {name: named[name] for name in own.parameters}
        _check_copy(own, problem)
        other = copy.copy(self)
        other.problem, other.parameters = problem, list(problem.parameters.values())
        other.dtype = other.precision = torch.float64
        return other


def _check_copy(own: Problem, copied: Problem) -> None:
    """Refuse a copy whose gradients are not those of the original."""
    for batch in copied.batches:
        wide = batching.to(batch, own.device, torch.float64)
        with copied.evaluating(), torch.enable_grad(), plain_python():
            loss, copied_grad = copied.flat(wide)
        with own.evaluating(), torch.enable_grad(), plain_python():
            grad = own.flat(batch)[1]
        if loss.dtype != torch.float64:
            raise TypeError("the loss is not in float64")
        # A loss that holds on to the model itself does not follow the copy.
        gap, size = (
            float((copied_grad - grad).norm()),
            max(float(grad.norm()), float(copied_grad.norm())),
        )
        rounding = own.tolerance * (10 * size + 1e-3 * len(grad) ** 0.5)
        if not gap <= rounding:
            raise TypeError("the gradient of a copy in float64 differs from the model's own")


def _check_parameters(problem: Problem) -> None:
    """Refuse what autograd would multiply wrongly, or not at all."""
    for name, parameter in problem.parameters.items():
        if parameter.is_complex():
            raise InputError(
                f"parameter '{name}' is complex: store its real and imaginary parts"
                " as two real parameters"
            )
        if getattr(parameter, "_backward_hooks", None):
            raise InputError(
                f"parameter '{name}' has a gradient hook, which would change products: remove it"
            )
    for name, module in problem.model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise InputError(f"module '{name}' has sparse gradients: make it with sparse=False")


def linear_gradient(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """The gradient of ⟨outputs, vectors⟩ by ``inputs``; the graph is kept for the next vector.

    Outputs that depend on no input (a model that is linear in some weights has a constant
    gradient there) contribute zero, where autograd alone would raise.
    """
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(
        torch.autograd.grad(
            [o for o, _ in pairs],
            inputs,
            grad_outputs=[v for _, v in pairs],
            retain_graph=True,
            materialize_grads=True,
        )
    )
