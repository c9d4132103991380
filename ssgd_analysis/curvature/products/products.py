"""Ways to multiply one batch's matrix by a vector, each with a state that can be kept.

What depends on the weights alone is computed once, when a state is built; a product then costs
about two gradients (a batch's gradient costs three passes, its derivative along a vector six).
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
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

if TYPE_CHECKING:
    from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator

WAYS = {
    "linear": "the linear map v ↦ Hv traced and kept for each batch: fastest, most memory",
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
        operator: whose batch this is.
        batch: the examples.
        weigh: find out how many bytes the graph holds (else ``nbytes`` is 0).

    Raises:
        InputError: an operation without a second derivative; the error names the remedy.
    """

    def __init__(self, operator: "ProblemOperator", batch: Batch, weigh: bool = False) -> None:
        weights = {p.untyped_storage().data_ptr() for p in operator.problem.model.parameters()}
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
        with differentiable(operator.problem), hooks:
            try:
                roots, self._multiply = operator.multiplier(batch)
                if weigh:
                    check_twice_differentiable(roots)
                    self.multiply([torch.zeros_like(p) for p in operator.parameters])
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
    seen, waiting = set(), [root.grad_fn for root in roots]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
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
            " use finite differences (--product difference), or --operator ggn with them"
        )
    if "does not require grad" in text:
        return InputError(
            "the loss does not depend on the parameters for autograd: something in the model or the"
            " loss is detached or computed without gradients"
        )
    if "use_reentrant" in text:
        return InputError(
            "reentrant activation checkpoints can't be differentiated twice: use_reentrant=False"
        )
    return error


class LinearState:
    """A batch's linear map, out of a trace that all batches of its shape share.

    Args:
        operator: whose batch this is.
        batch: the examples, tensors only.
        traces: those made so far; a new one is added.

    Raises:
        Unsupported: it can't be traced or compiled, or disagrees with double backward.
    """

    def __init__(self, operator: "ProblemOperator", batch: Batch, traces: LinearMapCache) -> None:
        weights = traces.weights(operator.parameters)
        given = batching.tensors(batch)
        data = laid_out(given)
        shape = (str(batching.mapped(batch, [t[:0] for t in data])), *[t.shape for t in data])
        trial = laid_out([torch.ones_like(weight) for weight in weights])

        def flow(w: Sequence[Tensor], v: Sequence[Tensor], d: Sequence[Tensor]) -> Sequence[Tensor]:
            return operator.flow(w, v, batching.mapped(batch, list(d)))

        with differentiable(operator.problem):
            self._trace = traces.of(
                shape, lambda: Linearised(flow, weights, trial, data, compiled=traces.compiled)
            )
            self._kept = self._trace.fix(weights, trial, data)
        known = {t.untyped_storage().data_ptr() for t in [*weights, *given]}
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in self._kept}
        self.nbytes = sum(s.nbytes() for key, s in storages.items() if key not in known)
        self._verify(operator, batch)

    def _verify(self, operator: "ProblemOperator", batch: Batch) -> None:
        """One product against double backward: a trace may have baked in one batch's values."""
        generator = torch.Generator(operator.device).manual_seed(0)
        vector = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
            for p in operator.parameters
        ]
        truth = GraphState(operator, batch).multiply(vector)
        try:
            found = self.multiply(vector)
        except Exception as error:  # whatever a compiler raises, or a machine without one
            if is_out_of_memory(error):
                raise
            raise Unsupported(first_line(error)) from error
        size = float(global_norm(truth))
        gap = float(global_norm([a - b for a, b in zip(found, truth, strict=True)]))
        floor = torch.finfo(operator.dtype).eps ** 0.5
        # Two float32 readings of a product differ by some 1e-6 of it; a wrong branch by far more.
        if not gap <= 3 * floor * size + torch.finfo(operator.dtype).tiny:
            raise Unsupported(f"the trace is off by {gap:.1e} of {size:.1e}")

    def multiply(self, vector: list[Tensor]) -> list[Tensor]:
        """The product, split by parameter."""
        return self._trace.multiply(self._kept, vector)


class DifferenceState:
    """Finite differences: nothing is kept, and the product is inexact.

    Args:
        operator: whose batch this is, or its copy in float64.
        batch: the examples.
        factor: of the usual step.
    """

    nbytes = 0

    def __init__(self, operator: "ProblemOperator", batch: Batch, factor: float = 1.0) -> None:
        self.operator, self.batch, self.factor = operator, batch, factor

    def _loss_dtype(self) -> torch.dtype:
        """Some losses are computed in float32, whatever the model is in."""
        return self.operator.precision or self.operator.problem.precision

    def multiply(self, vector: list[Tensor]) -> list[Tensor]:
        """The product, split by parameter.

        In the weights' own float32 the step is ε^(1/3) ‖w‖ along the unit vector, which balances
        the error of the central difference, O(h²), and rounding, O(ε/h). Float64 steps far less,
        so that next to no ReLU changes its side on the way.
        """
        size = float(global_norm(vector))
        if size == 0:
            return [torch.zeros_like(part) for part in vector]
        operator = self.operator
        scale = max(operator.problem.weight_norm(), 1e-3)
        given = [part.dtype for part in vector]
        epsilons = [torch.finfo(d).eps for d in (operator.dtype, self._loss_dtype())]
        step = SMALL if max(epsilons) < 1e-15 else (epsilons[0] * epsilons[1]) ** (1 / 6)
        step *= self.factor * scale / size
        parts = zip(operator.filters, vector, operator.parameters, strict=True)
        moves = [f.moving(v).to(p.dtype) for f, v, p in parts]  # padding rows are constants
        batch = batching.to(self.batch, operator.device, operator.dtype)
        # torch's own operations, not the plain ones: first derivatives are independent of those
        with (
            borrowed_weights(operator.parameters) as clean,
            operator.problem.evaluating(),
            torch.enable_grad(),
            plain_python(),
        ):

            def move(sign: int) -> None:
                with torch.no_grad():
                    for p, w, v in zip(operator.parameters, clean, moves, strict=True):
                        p.copy_(w + sign * step * v)

            try:
                found = operator.difference(batch, move, step)
            except (NotImplementedError, RuntimeError) as error:
                raise _explained(error) from error
        return [part.to(dtype) for part, dtype in zip(found, given, strict=True)]


def in_float64(operator: "ProblemOperator") -> "ProblemOperator":
    """The operator of a copy of the model in float64, for differences; batches are cast later.

    Raises:
        Exception: whatever a user's model or loss raises that does not allow it.
    """
    if operator.problem.precision == torch.float64:  # as it is: the weights come back bit for bit
        return operator
    problem = copy.copy(operator.problem)
    problem.model = copy.deepcopy(operator.problem.model)
    if isinstance(problem.loss, nn.Module):
        problem.loss = copy.deepcopy(problem.loss).to(torch.float64)
    memory = {p.data_ptr() for p in operator.problem.model.parameters()}
    if memory & {p.data_ptr() for p in problem.model.parameters()}:
        raise TypeError("the model gives itself as its copy")
    problem.model.to(torch.float64)
    named = dict(problem.model.named_parameters())
    problem.parameters = {name: named[name] for name in operator.problem.parameters}
    other = copy.copy(operator)
    other.problem, other.parameters = problem, list(problem.parameters.values())
    other.dtype = other.precision = torch.float64
    for batch in problem.batches:
        wide = batching.to(batch, operator.device, torch.float64)
        with problem.evaluating(), torch.enable_grad(), plain_python():
            loss, copied = problem.flat(wide)
        with operator.problem.evaluating(), torch.enable_grad(), plain_python():
            own = operator.problem.flat(batch)[1]
        if loss.dtype != torch.float64:
            raise TypeError("the loss is not in float64")
        # A loss that holds on to the model itself does not follow the copy.
        gap, size = float((copied - own).norm()), max(float(own.norm()), float(copied.norm()))
        rounding = operator.problem.tolerance * (10 * size + 1e-3 * len(own) ** 0.5)
        if not gap <= rounding:
            raise TypeError("the gradient of a copy in float64 is another one")
    return other
