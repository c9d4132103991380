"""The strategies to evaluate a problem at the present weights: plain passes, or a graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ssgd_analysis.batch import pair
from ssgd_analysis.curvature.products.linearise import Unsupported
from ssgd_analysis.landscapes.evaluation.staged_graph import StagedGraph
from ssgd_analysis.problem import Problem
from ssgd_analysis.problem.loss import right_share

# One batch's loss, and the share of right labels (or None); both stay on the device.
Score = tuple[Tensor, Tensor | None]
Strategy = Callable[[Sequence[float]], list[Score]]  # at a position that the weights moved to
STORED = 2**30  # bytes of all chunks' values; above, they are computed anew at every point


class Casting:
    """The precision of forward passes; losses are computed from float32 outputs.

    Args:
        problem: on the device that counts.
        precision: ``fp32`` (the model's own) or ``bf16``.
    """

    def __init__(self, problem: Problem, precision: str) -> None:
        self.device, self.bf16 = problem.device.type, precision == "bf16"

    def __call__(self) -> AbstractContextManager[object]:
        """A context for a forward pass."""
        # without the cache of cast weights: they move in place between passes
        return torch.autocast(self.device, torch.bfloat16, self.bf16, cache_enabled=False)

    def score(self, problem: Problem, index: int, outputs: Tensor, targets: Tensor) -> Score:
        """Loss and right labels of the outputs of a problem's batch."""
        if self.bf16:
            outputs = outputs.float()
        loss = problem.output_loss(outputs, targets)
        return loss, right_share(outputs, targets, problem.batch_terms(index))


def plain(problem: Problem, casting: Casting) -> Strategy:
    """Batch by batch, as :meth:`Problem.evaluate`."""

    def scores() -> Iterator[Score]:
        for index, batch in enumerate(problem.batches):
            if problem.takes_model:
                with casting():
                    loss = problem.batch_loss(batch)
                yield loss, None
                continue
            inputs, targets = pair(batch)
            with casting():
                outputs = problem.outputs(inputs)
            yield casting.score(problem, index, outputs, targets)

    return lambda position: list(scores())


def traced(
    problem: Problem,
    casting: Casting,
    size: int,
    *,
    rest_moves: bool,
) -> Strategy:
    """A graph of the forward pass on chunks of equal size, across batches.

    Raises:
        Unsupported: the model can't be traced, or the inputs are not tensors of one shape.
    """
    if problem.takes_model:
        raise Unsupported("a loss of the model itself")
    if problem.streams:
        raise Unsupported("batches that are not held in memory")
    pairs = [pair(batch) for batch in problem.batches]
    inputs = [given for given, _ in pairs]
    if any(not isinstance(given, Tensor) for given in inputs):
        raise Unsupported("inputs that are not tensors")
    if len({(given.shape[1:], given.dtype) for given in inputs}) > 1:
        raise Unsupported("inputs of several shapes")
    whole = _laid_out(_joined(inputs))
    count = len(whole)
    size = -(-count // -(-count // size))  # equal chunks; the last one is filled up
    missing = -count % size
    if missing:
        whole = _laid_out(torch.cat([whole, whole[:missing]]))
    parts = list(whole.split(size))
    with problem.evaluating():
        graph = StagedGraph(
            problem.model,
            list(problem.parameters.values()),
            parts[0],
            rest_moves=rest_moves,
            casting=casting(),
        )
        chunks = [graph.chunk_values(parts[0])]
        fits = len(parts) * sum(value.nbytes for value in chunks[0]) <= STORED
        chunks += [graph.chunk_values(part) for part in parts[1:]] if fits else []
    lengths = [len(given) for given in inputs]

    def scores(position: Sequence[float]) -> list[Score]:
        point = graph.point_values()
        ready = chunks if fits else (graph.chunk_values(part) for part in parts)
        outputs = _joined([graph.outputs(point, chunk) for chunk in ready])
        if len(outputs) != len(whole):
            raise Unsupported("outputs that do not count examples")
        cut = outputs[:count].split(lengths)
        return [
            casting.score(problem, index, part, targets)
            for index, (part, (_, targets)) in enumerate(zip(cut, pairs, strict=True))
        ]

    return scores


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _laid_out(images: Tensor) -> Tensor:
    """Channels last on the CPU, as its convolutions read them."""
    if images.dim() == 4 and images.device.type == "cpu":
        return images.contiguous(memory_format=torch.channels_last)
    return images
