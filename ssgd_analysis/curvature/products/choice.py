"""Choosing how products are made, by a short measurement on the first batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.products.linearise import LinearMapCache, Unsupported
from ssgd_analysis.curvature.products.plan import TRACES, WORK, Options, Plan, keepable
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

if TYPE_CHECKING:
    from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator

MICRO_BATCHES = (32, 64)  # sizes to try beside the whole batch
SLOW = 2.0  # seconds: a trial that takes longer ends the trials of larger pieces
TRACED = 3.5  # a trace keeps up to this many times what a graph keeps
REPEATS, ENOUGH = 15, 0.3  # a product is timed so often at most, and no longer than so many seconds
FEW = 8  # examples that tell how much memory one takes
PREFERENCE = 0.95  # the simpler way is left only for one that is this much faster


@dataclass(frozen=True)
class Trial:
    """One way and size, tried on a piece of the first batch.

    Args:
        way: a name of :data:`ssgd_analysis.curvature.products.products.WAYS`.
        size: examples of a piece.
        nbytes: what a piece keeps.
        trace: seconds, once.
        build: seconds for each piece that is kept, and each time for one that is not.
        multiply: seconds for each piece and product.
    """

    way: str
    size: int
    nbytes: int
    trace: float
    build: float
    multiply: float

    def plan(self, examples: int, products: int, budget: int) -> tuple[float, Plan]:
        """Predicted seconds for all products, and the plan."""
        pieces = -(-examples // self.size)
        kept = keepable(self.way, pieces, self.nbytes, budget)
        product = pieces * self.multiply + (pieces - kept) * self.build
        setup = self.trace + kept * self.build
        plan = Plan(
            self.way,
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
    operator: "ProblemOperator",
    options: Options,
    products: int,
    budget: int,
    progress: Progress,
) -> Plan:
    """The plan that ends first, by trials on pieces of the first batch.

    Args:
        operator: whose products.
        options: what is fixed.
        products: how many are expected.
        budget: bytes for what is kept.
        progress: told what is tried.

    Raises:
        InputError: an operation without a second derivative, or a fixed way that can't be.
    """
    problem = operator.problem
    whole, largest = problem.batches[0], problem.examples(problem.batches[0])
    sizes = [largest]
    if options.micro_batch:
        sizes = _divided(problem, [min(options.micro_batch, largest)], largest)
    ways = [options.way] if options.way else ["graph", "linear"]
    if not options.way and operator.device.type == "cuda":
        ways.append("compiled")
    room = budget / (WORK + 1)  # for one piece: the trials must fit, too
    each = _bytes_each(operator, whole)
    if not options.micro_batch:
        wanted = [
            size
            for size in {*MICRO_BATCHES, largest}
            if size <= min(largest, room / max(each, 1e-9))
        ]
        sizes = _divided(problem, wanted or [max(1, min(largest, int(room / each)))], largest)
    progress.start("choosing a product", len(sizes) * len(ways))
    trials: list[Trial] = []
    reason = "no way works"
    for way in ways:
        piece = each * (TRACED if way in TRACES else 1)  # bytes an example
        for size in sizes:
            if trials and size * piece > room:
                break
            trial = _try(operator, way, _first(problem, size))
            progress.advance(note=f"{way}, {size} examples at once")
            if isinstance(trial, str):
                reason = trial
                break
            trials.append(trial)
            piece = max(piece, trial.nbytes / trial.size)
            if trial.multiply > SLOW:
                break
    if not trials:
        raise InputError(f"--product {options.way or 'auto'} can't be used here: {reason}")
    best, *others = [t.plan(operator.problem.n_samples, products, budget) for t in trials]
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


def _bytes_each(operator: "ProblemOperator", whole: Batch) -> float:
    """Bytes that the graph of one example keeps.

    Raises:
        InputError: an operation without a second derivative.
    """
    if operator.engine.options.way == "difference":
        return 0.0
    count = operator.problem.examples(whole)
    few = min(FEW, count)
    try:
        piece = batching.pieces(whole, few, count)[0]
        return max(1.0, GraphState(operator, piece, weigh=True).nbytes / few)
    except Exception as error:  # a piece may be no batch at all: a user's model may raise anything
        if is_out_of_memory(error):
            raise
    return max(1.0, GraphState(operator, whole, weigh=True).nbytes / count)


def _try(operator: "ProblemOperator", way: str, piece: Batch) -> Trial | str:
    """Seconds and bytes of one piece; the reason where this way does not work."""
    traces = LinearMapCache(compiled=way == "compiled")
    vector = [torch.ones_like(parameter) for parameter in operator.parameters]

    def build(weigh: bool = False) -> State:
        if way in TRACES:
            return LinearState(operator, piece, traces)
        return (
            DifferenceState(operator, piece)
            if way == "difference"
            else GraphState(operator, piece, weigh)
        )

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        _synchronise(operator.device)
        began = time.perf_counter()
        made = work()
        _synchronise(operator.device)
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
    trace = max(0.0, first - seconds) if way in TRACES else 0.0
    return Trial(way, operator.problem.examples(piece), nbytes, trace, seconds, min(times))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
