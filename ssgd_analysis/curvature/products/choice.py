"""Choosing how products are made, by a short measurement on the first batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix
from ssgd_analysis.curvature.products.linearise import LinearMapCache, Unsupported
from ssgd_analysis.curvature.products.plan import LINEAR, WORK, Options, Plan, keepable
from ssgd_analysis.curvature.products.products import (
    DifferenceState,
    GraphState,
    LinearState,
    State,
)
from ssgd_analysis.devices import OUT_OF_MEMORY, is_out_of_memory
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import Progress

MICRO_BATCHES = (32, 64)  # sizes to try beside the whole batch
SLOW = 2.0  # seconds: a trial that takes longer ends the trials of larger pieces
TRACED = 3.5  # a trace keeps up to this many times what a graph keeps
REPEATS, ENOUGH = 15, 0.3  # a product is timed so often at most, and no longer than so many seconds
FEW = 8  # examples that tell how much memory one takes
PREFERENCE = 0.95  # the simpler strategy is left only for one that is this much faster


@dataclass(frozen=True)
class Trial:
    """One strategy and size, tried on a piece of the first batch.

    Args:
        strategy: a name of :data:`ssgd_analysis.curvature.products.products.STRATEGIES`.
        size: examples of a piece.
        nbytes: what a piece keeps.
        tracing: seconds, once.
        build: seconds for each piece that is kept, and each time for one that is not.
        multiply: seconds for each piece and product.
    """

    strategy: str
    size: int
    nbytes: int
    tracing: float
    build: float
    multiply: float

    def plan(self, examples: int, products: int, budget: int) -> tuple[float, Plan]:
        """Predicted seconds for all products, and the plan."""
        pieces = -(-examples // self.size)
        kept = keepable(self.strategy, pieces, self.nbytes, budget)
        product = pieces * self.multiply + (pieces - kept) * self.build
        setup = self.tracing + kept * self.build
        plan = Plan(
            self.strategy,
            self.size,
            pieces,
            kept,
            budget,
            piece=self.nbytes,
            setup=setup,
            product=product,
        )
        return setup + products * product, plan


def choose(
    matrix: BatchMatrix,
    options: Options,
    products: int,
    budget: int,
    progress: Progress,
) -> Plan:
    """The plan that ends first, by trials on pieces of the first batch.

    Args:
        matrix: of any batch.
        options: what is fixed.
        products: how many are expected.
        budget: bytes for the states that stay.
        progress: reports what is tried.

    Raises:
        InputError: an operation without a second derivative, or a fixed strategy that can't be.
    """
    problem = matrix.problem
    whole, largest = problem.batches[0], problem.examples(problem.batches[0])
    sizes = [largest]
    if options.micro_batch:
        sizes = _divided(problem, [min(options.micro_batch, largest)], largest)
    strategies = [options.strategy] if options.strategy else ["graph", "linear"]
    if not options.strategy and matrix.device.type == "cuda":
        strategies.append("compiled")
    room = budget / (WORK + 1)  # for one piece: the trials must fit, too
    each = _bytes_each(matrix, whole, options.strategy)
    if not options.micro_batch:
        wanted = [
            size
            for size in {*MICRO_BATCHES, largest}
            if size <= min(largest, room / max(each, 1e-9))
        ]
        sizes = _divided(problem, wanted or [max(1, min(largest, int(room / each)))], largest)
    progress.start("choosing a product", len(sizes) * len(strategies))
    trials: list[Trial] = []
    reason = "no strategy works"
    for strategy in strategies:
        piece = each * (TRACED if strategy in LINEAR else 1)  # bytes an example
        for size in sizes:
            if trials and size * piece > room:
                break
            trial = _try(matrix, strategy, _first(problem, size))
            progress.advance(note=f"{strategy}, {size} examples at once")
            if isinstance(trial, str):
                reason = trial
                break
            trials.append(trial)
            piece = max(piece, trial.nbytes / trial.size)
            if trial.multiply > SLOW:
                break
    if not trials:
        raise InputError(f"--product {options.strategy or 'auto'} can't be used here: {reason}")
    best, *others = [t.plan(matrix.problem.n_samples, products, budget) for t in trials]
    for other in others:
        if other[0] < PREFERENCE * best[0]:
            best = other
    return best[1]


def _divided(problem: Problem, sizes: Sequence[int], largest: int) -> list[int]:
    """Those sizes that every batch may be cut to, ascending; else whole batches."""
    return [size for size in sorted(sizes) if problem.cut(size) is not None] or [largest]


def _first(problem: Problem, size: int) -> Batch:
    """The first piece of that size."""
    cut = problem.cut(size)
    return problem.batches[0] if cut is None else cut[0][0][0]


def _bytes_each(matrix: BatchMatrix, whole: Batch, strategy: str | None) -> float:
    """Bytes that the graph of one example keeps.

    Raises:
        InputError: an operation without a second derivative.
    """
    if strategy == "difference":
        return 0.0
    count = matrix.problem.examples(whole)
    size = min(FEW, count)
    try:
        piece = batching.pieces(whole, size, count)[0]
        return max(1.0, GraphState(matrix, piece, weigh=True).nbytes / size)
    except Exception as error:  # a piece may be no batch at all: a user's model may raise anything
        if is_out_of_memory(error):
            raise
    return max(1.0, GraphState(matrix, whole, weigh=True).nbytes / count)


def _try(matrix: BatchMatrix, strategy: str, piece: Batch) -> Trial | str:
    """Seconds and bytes of one piece; the reason where this strategy does not work."""
    maps = LinearMapCache(compiled=strategy == "compiled")
    vector = [torch.ones_like(parameter) for parameter in matrix.parameters]

    def build(weigh: bool = False) -> State:
        if strategy in LINEAR:
            return LinearState(matrix, piece, maps)
        return (
            DifferenceState(matrix, piece)
            if strategy == "difference"
            else GraphState(matrix, piece, weigh)
        )

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        _synchronise(matrix.device)
        began = time.perf_counter()
        made = work()
        _synchronise(matrix.device)
        return time.perf_counter() - began, made

    try:
        first, weighed = timed(lambda: build(weigh=True))
        nbytes = weighed.nbytes
        del weighed
        seconds, state = timed(build)
        state.multiply(vector)
        times: list[float] = []
        while len(times) < 3 or (len(times) < REPEATS and sum(times) < ENOUGH):
            times.append(timed(lambda: state.multiply(vector))[0])
    except Unsupported as error:
        return first_line(error)
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        return f"out of memory: {first_line(error)}"
    tracing = max(0.0, first - seconds) if strategy in LINEAR else 0.0
    return Trial(strategy, matrix.problem.examples(piece), nbytes, tracing, seconds, min(times))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
