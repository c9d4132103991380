"""Strategies to multiply one batch's matrix by a vector, each with a state that can stay in memory.

What depends on the weights alone is computed once, when a state is built; a product then costs
about two gradients (a batch's gradient costs three passes, its derivative along a vector six).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix
from ssgd_analysis.curvature.products.linearise import (
    Linearised,
    LinearMapCache,
    Unsupported,
    laid_out,
)
from ssgd_analysis.curvature.products.plain import PlainOperations
from ssgd_analysis.devices import is_out_of_memory, plain_python
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import borrowed_weights, global_norm

STRATEGIES = {
    "linear": "the linear map v ↦ Hv traced, one state for each batch: fastest, most memory",
    "compiled": "the same, compiled: minutes at the start; tried by itself on a GPU only",
    "graph": "double backward on a kept autograd graph",
    "difference": "central differences of gradients or outputs: needs no second derivative",
}


# The step of differences relative to the weights: in float64 far above rounding (1e-16), and so
# small that next to no ReLU changes its side on the way.
SMALL = 1e-8


class State(Protocol):
    """One batch's matrix at fixed weights."""

    nbytes: int

    def multiply(self, vector: list[Tensor]) -> list[Tensor]:
        """The product, split by parameter as the vector is."""


@contextlib.contextmanager
def differentiable(problem: Problem) -> Iterator[None]:
    """Evaluation mode, gradients on, and kernels that can be differentiated twice.

    Fused attention and compiled models have no double backward (pytorch issue 116350), nor have
    cuDNN's recurrent nets: inside, plain ones are used, and what was set before comes back.
    """
    with (
        problem.evaluating(),
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        plain_python(),
        PlainOperations(order=2),
    ):
        yield


class GraphState:
    """Double backward: the graph of the gradient is built once, a product is one pass over it.

    Args:
        matrix: of any batch.
        batch: the examples.
        weigh: find out how many bytes the graph holds (else ``nbytes`` is 0).

    Raises:
        InputError: an operation without a second derivative; the error names the remedy.
    """

    def __init__(self, matrix: BatchMatrix, batch: Batch, weigh: bool = False) -> None:
        weights = {p.untyped_storage().data_ptr() for p in matrix.problem.model.parameters()}
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        hooks = (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
            if weigh
            else contextlib.nullcontext()
        )
        with differentiable(matrix.problem), hooks:
            try:
                roots, self._multiply = matrix.build_product(batch)
                if weigh:
                    check_twice_differentiable(roots)
                    self.multiply([torch.zeros_like(p) for p in matrix.parameters])
            except (NotImplementedError, RuntimeError) as error:
                raise _explained(error) from error
        self.nbytes = sum(held.values())

    def multiply(self, vector: list[Tensor]) -> list[Tensor]:
        """The product, split by parameter."""
        try:
            return self._multiply(vector, range(len(vector)))
        except (NotImplementedError, RuntimeError) as error:
            raise _explained(error) from error


def check_twice_differentiable(roots: Sequence[Tensor]) -> None:
    """Refuse graphs that end at an operation which says that it is differentiable once.

    torch raises only where such a node lies on the way to the weights; a custom function marked
    ``once_differentiable`` does not, and its part of the product would silently be zero.
    """
    visited, waiting = set(), [root.grad_fn for root in roots]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if "Error" in node.name():
            raise RuntimeError("once_differentiable: a custom backward is not differentiable")
        waiting += [following for following, _ in node.next_functions]


def _explained(error: Exception) -> Exception:
    """An operation without a second derivative becomes an error that names the remedy."""
    text = str(error)
    twice = "once_differentiable" in text or "double backward" in text.lower()
    if twice or ("derivative for" in text and "not implemented" in text):
        return InputError(
            f"an operation of the model or the loss has no second derivative ({first_line(error)}):"
            " use finite differences (--product difference), with --operator ggn if need be"
        )
    if "does not require grad" in text:
        return InputError(
            "autograd finds no path from the loss to the parameters: something in the model or the"
            " loss is detached or computed without gradients"
        )
    if "use_reentrant" in text:
        return InputError(
            "reentrant activation checkpoints can't be differentiated twice: use"
            " checkpoint(…, use_reentrant=False)"
        )
    return error


class LinearState:
    """A batch's linear map, out of a trace that all batches of its shape share.

    Args:
        matrix: of any batch.
        batch: the examples, tensors only.
        maps: those traced so far; a new one is added.

    Raises:
        Unsupported: it can't be traced or compiled, or disagrees with double backward.
    """

    def __init__(self, matrix: BatchMatrix, batch: Batch, maps: LinearMapCache) -> None:
        weights = maps.weights(matrix.parameters)
        given = batching.tensors(batch)
        data = laid_out(given)
        shape = (str(batching.mapped(batch, [t[:0] for t in data])), *[t.shape for t in data])
        trial = laid_out([torch.ones_like(weight) for weight in weights])

        def product(
            w: Sequence[Tensor], v: Sequence[Tensor], d: Sequence[Tensor]
        ) -> Sequence[Tensor]:
            return matrix.functional_product(w, v, batching.mapped(batch, list(d)))

        with differentiable(matrix.problem):
            self._map = maps.of(
                shape, lambda: Linearised(product, weights, trial, data, compiled=maps.compiled)
            )
            self._fixed = self._map.fix(weights, trial, data)
        shared = {t.untyped_storage().data_ptr() for t in [*weights, *given]}
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in self._fixed}
        self.nbytes = sum(s.nbytes() for key, s in storages.items() if key not in shared)
        self._verify(matrix, batch)

    def _verify(self, matrix: BatchMatrix, batch: Batch) -> None:
        """One product against double backward: a trace may have baked in one batch's values."""
        generator = torch.Generator(matrix.device).manual_seed(0)
        vector = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
            for p in matrix.parameters
        ]
        truth = GraphState(matrix, batch).multiply(vector)
        try:
            found = self.multiply(vector)
        except Exception as error:  # whatever a compiler raises, or a machine without one
            if is_out_of_memory(error):
                raise
            raise Unsupported(first_line(error)) from error
        size = float(global_norm(truth))
        gap = float(global_norm([a - b for a, b in zip(found, truth, strict=True)]))
        floor = torch.finfo(matrix.dtype).eps ** 0.5
        # Two float32 readings of a product differ by some 1e-6 of it; a wrong branch by far more.
        if not gap <= 3 * floor * size + torch.finfo(matrix.dtype).tiny:
            raise Unsupported(f"the trace is off by {gap:.1e} of {size:.1e}")

    def multiply(self, vector: list[Tensor]) -> list[Tensor]:
        """The product, split by parameter."""
        return self._map.multiply(self._fixed, vector)


class DifferenceState:
    """Finite differences: there is no state, and the product is inexact.

    Args:
        matrix: of any batch, or its copy in float64.
        batch: the examples.
        factor: of the usual step.
    """

    nbytes = 0

    def __init__(self, matrix: BatchMatrix, batch: Batch, factor: float = 1.0) -> None:
        self.matrix, self.batch, self.factor = matrix, batch, factor

    def _loss_dtype(self) -> torch.dtype:
        """Some losses are computed in float32, whatever the model is in."""
        return self.matrix.precision or self.matrix.problem.precision

    def multiply(self, vector: list[Tensor]) -> list[Tensor]:
        """The product, split by parameter.

        In the weights' own float32 the step is ε^(1/3) ‖w‖ along the unit vector, which balances
        the error of the central difference, O(h²), and rounding, O(ε/h). Float64 steps far less,
        so that next to no ReLU changes its side on the way.
        """
        size = float(global_norm(vector))
        if size == 0:
            return [torch.zeros_like(part) for part in vector]
        matrix = self.matrix
        scale = max(matrix.problem.weight_norm(), 1e-3)
        given = [part.dtype for part in vector]
        epsilons = [torch.finfo(d).eps for d in (matrix.dtype, self._loss_dtype())]
        step = SMALL if max(epsilons) < 1e-15 else (epsilons[0] * epsilons[1]) ** (1 / 6)
        step *= self.factor * scale / size
        parts = zip(matrix.filters, vector, matrix.parameters, strict=True)
        moves = [f.moving(v).to(p.dtype) for f, v, p in parts]  # padding rows are constants
        batch = batching.to(self.batch, matrix.device, matrix.dtype)
        # torch's own operations, not the plain ones: first derivatives are independent of those
        with (
            borrowed_weights(matrix.parameters) as clean,
            matrix.problem.evaluating(),
            torch.enable_grad(),
            plain_python(),
        ):

            def move(sign: int) -> None:
                with torch.no_grad():
                    for p, w, v in zip(matrix.parameters, clean, moves, strict=True):
                        p.copy_(w + sign * step * v)

            try:
                found = matrix.difference(batch, move, step)
            except (NotImplementedError, RuntimeError) as error:
                raise _explained(error) from error
        return [part.to(dtype) for part, dtype in zip(found, given, strict=True)]
