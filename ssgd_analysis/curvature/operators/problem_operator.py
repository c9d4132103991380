"""Operators over the weights of a model."""

import platform
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.products.engine import Engine
from ssgd_analysis.curvature.products.plan import Options, Plan, recall, remember
from ssgd_analysis.devices import OUT_OF_MEMORY, is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import filters_of

# The product with a vector that has entries for some parameters only, given by their positions;
# the result has the same ones.
Multiply = Callable[[list[Tensor], Sequence[int]], list[Tensor]]


class ProblemOperator(Operator):
    """An operator over the weights of a model: the mean over examples of each batch's matrix.

    Evaluation mode is set while a batch is prepared and given back. What is kept between
    products belongs to the weights at that time; weights or buffers changed in place since are
    noticed, and it is built anew (changes through ``.data`` are not).

    Args:
        problem: model, loss and batches.
        options: how to multiply; by default double backward on kept graphs.

    Raises:
        InputError: no problem, or parameters that have no matrix of this kind: complex ones,
            sparse gradients, gradients changed by hooks.
    """

    def __init__(self, problem: Problem, *, options: Options | None = None) -> None:
        if not isinstance(problem, Problem):
            raise InputError(
                f"an operator takes a Problem, not a {type(problem).__name__}:"
                " Problem(model, loss, batches)"
            )
        self._use(problem, options)

    def _use(self, problem: Problem, options: Options | None) -> None:
        _check_parameters(problem)
        self.problem = problem
        self.shape = (problem.n_parameters,) * 2
        self.dtype, self.device = problem.dtype, problem.device
        self.parameters = list(problem.parameters.values())
        self.filters = filters_of(problem.model, self.parameters)
        try:
            self.engine = Engine(self, options or Options())
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            raise WorkError(
                f"out of memory with one example at a time: {first_line(error)}"
            ) from error
        self.basis_bytes = self.engine.basis_bytes

    precision: torch.dtype | None = None  # of the loss; else the problem's
    differs = True  # whether differences give the same matrix as products

    @abstractmethod
    def multiplier(self, batch: Batch) -> tuple[Sequence[Tensor], Multiply]:
        """Build one batch's graph: what is differentiated again, and the product by that."""

    @abstractmethod
    def flow(
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

    def prepare(
        self, products: int, progress: Progress = SILENT, *, plans: Path | None = None
    ) -> Plan:
        """Measure which way to multiply is best for so many products, and take it.

        Args:
            products: how many are expected.
            progress: told what is tried, and of a plan that has to be lowered later.
            plans: folder where measured plans are kept and looked for.

        Raises:
            InputError: an operation without a second derivative, or a problem that can't be
                measured.
        """
        self.engine.progress = progress
        self.engine.check()
        known = recall(plans, self._kind()) if plans else None
        if known is None:
            self.engine.choose(products, progress)
            if plans:
                remember(plans, self._kind(), self.engine.plan)
        else:
            self.engine.take(known)
        return self.engine.plan

    def _kind(self) -> str:
        """All that a choice of products depends on but the numbers themselves."""
        problem, options = self.problem, self.engine.options
        shapes = [(name, tuple(p.shape)) for name, p in problem.parameters.items()]
        first = [tuple(tensor.shape) for tensor in batching.tensors(problem.batches[0])]
        machine = [torch.__version__, torch.get_num_threads(), platform.processor()]
        if self.device.type == "cuda":
            machine.append(torch.cuda.get_device_name(self.device))
        loss = getattr(problem.loss, "__qualname__", type(problem.loss).__qualname__)
        loss = f"{getattr(problem.loss, '__module__', '')}.{loss}"
        kind = repr(
            (type(self).__name__, str(problem.model), shapes, loss, first, problem.n_samples,
             self.dtype, options, machine)
        )  # fmt: skip
        return re.sub(r" at 0x[0-9a-f]+", "", kind)  # where an object lies differs by process

    def part(self, index: int, block: Tensor) -> Tensor:
        """One batch's product with a block, (P, K)."""
        return self.engine.multiply(index, block)

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        self.engine.refresh()
        for index, share in enumerate(self.problem.shares):
            yield share, self.part(index, block)

    def halves(self) -> tuple["BatchOperator", "BatchOperator"]:
        """Two operators over every other batch each, for cross-fitting.

        Raises:
            ValueError: a single batch.
        """
        count = len(self.problem.batches)
        return BatchOperator(self, range(0, count, 2)), BatchOperator(self, range(1, count, 2))


class BatchOperator(Operator):
    """Some batches of an operator, as an operator; what is kept for them is shared.

    Args:
        operator: the whole.
        indices: which batches.

    Raises:
        ValueError: no batches.
    """

    def __init__(self, operator: ProblemOperator, indices: Sequence[int]) -> None:
        if not indices:
            raise ValueError("an operator needs at least one batch")
        self.operator, self.indices = operator, list(indices)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.basis_bytes = operator.basis_bytes
        self.share = sum(operator.problem.shares[index] for index in self.indices)

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        self.operator.engine.refresh()
        for index in self.indices:
            share = self.operator.problem.shares[index] / self.share
            yield share, self.operator.part(index, block)


def _check_parameters(problem: Problem) -> None:
    """Refuse what autograd would multiply wrongly, or not at all."""
    for name, parameter in problem.parameters.items():
        if parameter.is_complex():
            raise InputError(
                f"parameter '{name}' is complex: keep its two parts as real parameters"
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
