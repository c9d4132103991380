"""The engine of products: what stays between them, in what pieces, by which strategy."""

import dataclasses
import gc

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix
from ssgd_analysis.curvature.products.checks import ProductChecks, check_products
from ssgd_analysis.curvature.products.choice import choose
from ssgd_analysis.curvature.products.linearise import LinearMapCache, Unsupported
from ssgd_analysis.curvature.products.plan import (
    BASIS_BYTES,
    BASIS_VECTORS,
    LINEAR,
    Options,
    Plan,
    describe,
    keepable,
)
from ssgd_analysis.curvature.products.products import (
    DifferenceState,
    GraphState,
    LinearState,
    State,
)
from ssgd_analysis.devices import OUT_OF_MEMORY, free_bytes, is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import flattened

SHARE_OF_FREE = 0.5  # of the free memory is the default budget
SHARE_OF_BASIS = 0.25  # of the budget, at most, is for a basis of vectors


class Engine:
    """Multiplies the matrices of all batches.

    Args:
        matrix: of any batch.
        options: what is fixed.
    """

    def __init__(self, matrix: BatchMatrix, options: Options) -> None:
        self.matrix, self.options = matrix, options
        self.progress: Progress = SILENT
        self._states: dict[tuple[int, int], State] = {}
        self._maps = LinearMapCache()
        self._double: BatchMatrix | None = None  # a copy in float64, for differences
        self.checks: ProductChecks | None = None
        self.versions: list[tuple[int, int]] = []
        self._buffers: list[Tensor] = []
        problem = matrix.problem
        self.largest = max(problem.counts)
        self.memory = options.memory or int(SHARE_OF_FREE * free_bytes(matrix.device))
        vector = problem.n_parameters * torch.finfo(matrix.dtype).bits // 8  # bytes
        self.basis_bytes = min(
            BASIS_BYTES, BASIS_VECTORS * vector, int(SHARE_OF_BASIS * self.memory)
        )
        self.budget = self.memory - self.basis_bytes
        self._cut(options.strategy or "graph", options.micro_batch or self.largest)

    def _cut(self, strategy: str, size: int) -> None:
        """Cut the batches into pieces, where they can be cut; no state is built yet."""
        self._states.clear()
        self._maps = LinearMapCache(compiled=strategy == "compiled")
        problem = self.matrix.problem
        if problem.cut(size) is None:
            size = self.largest
        self.pieces = problem.cut(size) or []  # whole batches are always there
        count = sum(len(pieces) for pieces in self.pieces)
        kept = 0 if strategy == "difference" else count
        self.plan = Plan(strategy, size, count, kept, self.memory, basis=self.basis_bytes)

    def refresh(self) -> None:
        """Forget all states if the weights or buffers have changed since they were built."""
        model = self.matrix.problem.model
        self.check()
        versions = [(tensor.data_ptr(), tensor._version) for tensor in model.parameters()]
        buffers = list(model.buffers())
        same = len(buffers) == len(self._buffers) and all(map(torch.equal, buffers, self._buffers))
        if versions != self.versions or not same:
            self.forget()
        if self.checks is None:
            self._verify()

    def forget(self) -> None:
        """Drop all states; they are built anew at the present weights."""
        model = self.matrix.problem.model
        self._states.clear()
        self._double = None
        self._maps.forget_weights()
        self.versions = [(tensor.data_ptr(), tensor._version) for tensor in model.parameters()]
        # BatchNorm changes its statistics without a new version: buffers are compared by value
        self._buffers = [buffer.clone() for buffer in model.buffers()]

    def check(self) -> None:
        """Refuse what can't be measured; once, before the first product or trial."""
        problem = self.matrix.problem
        if problem.checked:
            return
        try:
            problem.check()
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):  # products may still do, in pieces
                raise

    def _verify(self) -> None:
        """Hold products against something independent; once a problem and kind of operator."""
        done = self.matrix.problem.checked
        kind = (type(self.matrix), self.plan.strategy == "difference")
        if kind not in done:
            done[kind] = check_products(self.matrix, self._checked_product, differences=kind[1])
        self.checks = done[kind]

    def _checked_product(self, block: Tensor) -> Tensor:
        """The mean matrix's product with a block, after weights were moved and put back."""
        self.forget()
        total = torch.zeros_like(block)
        for index, share in enumerate(self.matrix.problem.shares):
            total.add_(self.multiply(index, block), alpha=share)
        return total

    def multiply(self, index: int, block: Tensor) -> Tensor:
        """One batch's product with a block.

        Args:
            index: of the batch.
            block: shape (P, K).

        Raises:
            WorkError: out of memory with no state kept and one example at a time.
        """
        while True:
            try:
                return self._multiply(index, block)
            except OUT_OF_MEMORY as error:
                if not is_out_of_memory(error):
                    raise
                text = first_line(error)
            self._lower(text)

    def _multiply(self, index: int, block: Tensor) -> Tensor:
        problem = self.matrix.problem
        dtypes = [parameter.dtype for parameter in self.matrix.parameters]  # may be mixed
        columns = [
            [part.to(dtype) for part, dtype in zip(problem.split(column), dtypes, strict=True)]
            for column in block.T.contiguous()
        ]
        total = torch.zeros_like(block)
        for position, (piece, share) in enumerate(self.pieces[index]):
            state = self._state((index, position), piece)
            for k, column in enumerate(columns):
                total[:, k].add_(flattened(state.multiply(column)), alpha=share)
            del state
        return total.detach()

    def _state(self, position: tuple[int, int], piece: Batch) -> State:
        if position in self._states:
            return self._states[position]
        weigh = self.plan.piece is None
        if weigh and self.plan.strategy == "graph":  # a weighed graph is slower, so it is not kept
            self._keep_what_fits(GraphState(self.matrix, piece, weigh).nbytes)
        state = self._build(self.plan.strategy, piece)
        if weigh and self.plan.strategy in LINEAR:
            self._keep_what_fits(state.nbytes)
        if len(self._states) < self.plan.kept:
            self._states[position] = state
        return state

    def _keep_what_fits(self, piece: int) -> None:
        kept = keepable(self.plan.strategy, self.plan.pieces, piece, self.budget)
        self.plan = dataclasses.replace(self.plan, kept=kept, piece=piece)

    def _build(self, strategy: str, piece: Batch) -> State:
        if strategy in LINEAR:
            try:
                return LinearState(self.matrix, piece, self._maps)
            except Unsupported as reason:
                # The trials saw the first piece only; a later one may take another branch.
                if self.options.strategy == strategy:
                    raise InputError(
                        f"--product {strategy} can't be used here: {reason}"
                    ) from reason
                return GraphState(self.matrix, piece)
        if strategy == "difference":
            if self._double is None:
                self._double = _double(self.matrix)
            return DifferenceState(self._double, piece)
        return GraphState(self.matrix, piece)

    def _lower(self, text: str) -> None:
        """Out of memory: keep less, then work on less at once."""
        plan = self.plan
        self._states.clear()
        gc.collect()
        if plan.kept > 1:
            self.plan = dataclasses.replace(plan, kept=plan.kept // 4)
        elif plan.strategy in LINEAR:
            self._cut("graph", plan.micro_batch)
        else:
            self._cut(plan.strategy, self._smaller(text))
        if plan.kept <= 1:
            self.plan = dataclasses.replace(self.plan, kept=0, piece=0)  # the budget was wrong
        self.progress.warn(f"out of memory: continuing with {describe(self.plan)}")

    def _smaller(self, text: str) -> int:
        """Half as many examples at once, or still fewer where looking takes too much memory."""
        size = self.plan.micro_batch
        while size > 1:
            size = (size + 1) // 2
            try:
                if self.matrix.problem.cut(size) is not None:
                    return size
            except OUT_OF_MEMORY as error:
                if not is_out_of_memory(error):
                    raise
                continue
            raise WorkError(
                f"out of memory with {self.plan.micro_batch} examples at a time, and batches that"
                f" can't be cut: give smaller ones (--batch-size): {text}"
            )
        raise WorkError(f"out of memory with one example at a time: {text}")

    def choose(self, products: int, progress: Progress = SILENT) -> None:
        """Take the plan that ends first, by measurement; see :func:`choice.choose`.

        Args:
            products: how many are expected.
            progress: reports what is tried, and plans that are lowered later.
        """
        self.progress = progress
        self.take(choose(self.matrix, self.options, products, self.budget, progress))

    def take(self, plan: Plan) -> None:
        """Make products as a plan says, with as many states as this budget allows."""
        self._cut(plan.strategy, plan.micro_batch)
        pieces = self.plan.pieces
        kept = keepable(plan.strategy, pieces, plan.piece or 0, self.budget)
        self.plan = dataclasses.replace(
            plan,
            micro_batch=self.plan.micro_batch,
            pieces=pieces,
            kept=kept,
            memory=self.memory,
            basis=self.basis_bytes,
        )


def _double(matrix: BatchMatrix) -> BatchMatrix:
    """A copy in float64 where model and loss allow it, else the matrix itself."""
    try:
        return matrix.in_float64()
    except Exception:  # whatever a user's model raises in another precision
        return matrix
