"""Operators over the weights of a model."""

import platform
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix
from ssgd_analysis.curvature.products.engine import Engine
from ssgd_analysis.curvature.products.plan import Options, Plan, recall, remember
from ssgd_analysis.devices import OUT_OF_MEMORY, is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.streams import Stream


class ProblemOperator(Operator):
    """An operator over the weights of a model: the mean over examples of each batch's matrix.

    Evaluation mode is set while a batch is prepared and given back. States that stay between
    products belong to the weights at that time; weights or buffers changed in place since are
    noticed, and states are built anew (changes through ``.data`` are not noticed).

    Args:
        problem: model, loss and batches.
        options: how to multiply; by default double backward on graphs that stay in memory.

    Raises:
        InputError: no problem, or parameters that have no matrix of this kind: complex ones,
            sparse gradients, gradients changed by hooks.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis.curvature import HessianOperator, trace
        >>> from ssgd_analysis.problem import Problem
        >>> x, y = torch.randn(8, 3), torch.randn(8, 1)
        >>> batches = list(zip(x.split(4), y.split(4)))
        >>> H = HessianOperator(Problem(nn.Linear(3, 1), nn.MSELoss(), batches))
        >>> H
        HessianOperator(4 × 4, float32 on cpu, N=8 in 2 batches)
        >>> damped = H + 0.1 * H  # the sum has the same batches, so its trace has a sampling error
        >>> trace(damped, probes=4, seed=0).sampling_stderr is None
        False
    """

    batch_matrix: ClassVar[type[BatchMatrix]]

    def __init__(self, problem: Problem, *, options: Options | None = None) -> None:
        self._compose(self.batch_matrix(problem), options)

    def _compose(self, matrix: BatchMatrix, options: Options | None) -> None:
        self.matrix, self.problem = matrix, matrix.problem
        self.parameters = matrix.parameters
        self.shape = (self.problem.n_parameters,) * 2
        self.dtype, self.device = matrix.dtype, matrix.device
        try:
            self.engine = Engine(matrix, options or Options())
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            raise WorkError(
                f"out of memory with one example at a time: {first_line(error)}"
            ) from error
        self.basis_bytes = self.engine.basis_bytes

    def __repr__(self) -> str:
        """One line: the kind, the shape, dtype and device, and of how many examples."""
        problem = self.problem
        return (
            f"{super().__repr__()[:-1]}, N={sum(problem.counts)} in {len(problem.counts)} batches)"
        )

    def prepare(
        self, products: int, progress: Progress = SILENT, *, plans: Path | None = None
    ) -> Plan:
        """Measure which strategy of multiplying is best for so many products, and take it.

        Args:
            products: how many are expected.
            progress: reports what is tried, and a plan that has to be lowered later.
            plans: folder where measured plans are stored and looked for.

        Raises:
            InputError: an operation without a second derivative, or a problem that can't be
                measured.
        """
        self.engine.progress = progress
        self.engine.check()
        measured = recall(plans, self._kind()) if plans else None
        if measured is None:
            self.engine.choose(products, progress)
            if plans:
                remember(plans, self._kind(), self.engine.plan)
        else:
            self.engine.take(measured)
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

    def refresh(self) -> None:
        """Forget what belongs to other weights; the first time, check problem and products."""
        self.engine.refresh()

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        self.refresh()
        for index, share in enumerate(self.problem.shares):
            yield share, self.part(index, block)

    @property
    def sample(self) -> Hashable:
        """The batches, by where their tensors lie, and their shares."""
        if isinstance(self.problem.batches, Stream):
            return self.problem.batches.key, tuple(self.problem.shares)
        batches = [batching.tensors(batch) for batch in self.problem.batches]
        pointers = tuple(tuple((t.data_ptr(), t.shape) for t in tensors) for tensors in batches)
        return pointers, tuple(self.problem.shares)

    def halves(self) -> tuple["BatchOperator", "BatchOperator"]:
        """Two operators over every other batch each, for cross-fitting.

        Raises:
            InputError: a single batch.

        Example:
            >>> import torch; from torch import nn
            >>> from ssgd_analysis.curvature import HessianOperator
            >>> from ssgd_analysis.problem import Problem
            >>> batches = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(3)]
            >>> H = HessianOperator(Problem(nn.Linear(3, 1), nn.MSELoss(), batches))
            >>> even, odd = H.halves()
            >>> even.indices, odd.indices
            ([0, 2], [1])
        """
        count = len(self.problem.batches)
        return BatchOperator(self, range(0, count, 2)), BatchOperator(self, range(1, count, 2))


class BatchOperator(Operator):
    """Some batches of an operator, as an operator; their states are shared.

    Args:
        operator: the whole.
        indices: which batches.

    Raises:
        InputError: no batches.
    """

    def __init__(self, operator: ProblemOperator, indices: Sequence[int]) -> None:
        if not indices:
            raise InputError("an operator needs at least one batch")
        self.operator, self.indices = operator, list(indices)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.basis_bytes = operator.basis_bytes
        self.share = sum(operator.problem.shares[index] for index in self.indices)

    def refresh(self) -> None:
        """Refresh the whole operator."""
        self.operator.refresh()

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        self.refresh()
        for index in self.indices:
            share = self.operator.problem.shares[index] / self.share
            yield share, self.operator.part(index, block)

    @property
    def sample(self) -> Hashable:
        """That of the whole, and which of its batches."""
        return self.operator.sample, tuple(self.indices)
