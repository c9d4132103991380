"""How the points of a landscape are evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssgd_analysis import batch as batching
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

STRATEGIES = ("traced", "plain")
CACHE = 2**20  # bytes of a core's second cache, where the system does not say
FILL = 2  # times this cache for the largest activation: several cores share it, and more
FEWEST = 32  # examples of a chunk: below, starting operations takes longer than doing them
FEW = 7  # examples whose activations are measured; seldom the size of a weight
GPU_SHARE = 32  # of a GPU's memory, one part for the largest activation


@dataclass(frozen=True)
class EvaluationPlan:
    """How each point is evaluated.

    An explicit plan always wins. Without one, sizes decide (:func:`chunk_size`), so that the same
    call gives the same bits. A clock decides only if measuring was asked for
    (:func:`ssgd_analysis.landscapes.evaluation.measured_plan`, ``tune``), and the plan that it
    found is in the record, to be given next time. Every plan but the plain one is checked against
    plain forward passes: a given one is refused if its losses differ by more than rounding, any
    other is replaced by the plain one.

    Args:
        strategy: ``traced``: one graph of operations, cut by what moves, for chunks of examples;
            ``plain``: the model itself, for the problem's own batches. (The model itself never
            gets pieces of them: it might look at a whole batch's values.)
        chunk: examples at once.
        why: the reason why no faster strategy is used; empty for the fastest.
    """

    strategy: str
    chunk: int
    why: str = ""

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES or self.chunk < 1:
            raise InputError(
                f"the plan '{self.strategy}:{self.chunk}' should be a strategy"
                f" ({' or '.join(STRATEGIES)}) and at least one example, such as traced:128"
            )

    def to_json(self) -> dict[str, Any]:
        """The plan as records hold it: there the strategy is called ``way``."""
        return {"way": self.strategy, "chunk": self.chunk, "why": self.why}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """The plan of a record; ``why`` may be absent."""
        return cls(entry["way"], entry["chunk"], entry.get("why", ""))


Plans = dict[str, dict[str, Any]]  # split → the EvaluationPlan of its points as JSON


def chunk_size(problem: Problem) -> int:
    """Examples at once: as many as keep the largest activation in the processor's cache.

    Memory that is used again while it is in the cache costs a fraction, and the system need
    not hand out new pages at every point. On a GPU: a share of its memory.
    """
    largest = max(batching.examples(batch) for batch in problem.batches)
    each = _bytes_each(problem)
    if problem.device.type == "cuda":
        room = torch.cuda.get_device_properties(problem.device).total_memory // GPU_SHARE
    else:
        room = FILL * _cache()
    return min(max(room // max(each, 1), FEWEST), max(largest, problem.n_samples))


def _cache() -> int:
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return CACHE


class _Largest(TorchDispatchMode):
    """Notes the largest tensor whose first axis counts examples."""

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.examples, self.bytes = examples, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, Tensor) and part.ndim and len(part) % self.examples == 0:
                self.bytes = max(self.bytes, part.numel() * part.element_size())
        return result


def _bytes_each(problem: Problem) -> int:
    """Bytes of the largest activation, for one example."""
    batch = problem.batches[0]
    count = min(FEW, batching.examples(batch))
    with problem.evaluating(), torch.no_grad(), _Largest(count) as found:
        problem.batch_loss(batching.pieces(batch, count)[0])
    return found.bytes // count
