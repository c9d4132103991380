"""Whether a changed copy of a model is still the same function, on real examples."""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem import Problem

Run = Callable[[nn.Module], list[Tensor]]


def runs(problem: Problem, batches: Sequence[Batch]) -> Run:
    """A function that gives a model's outputs on batches, or its loss where there are none.

    Args:
        problem: gives the loss.
        batches: what to run on.
    """

    def run(model: nn.Module) -> list[Tensor]:
        found: list[Tensor] = []
        hook = model.register_forward_hook(
            lambda module, inputs, output: found.extend(batching.tensors(output))
        )
        changed = Problem(model, problem.loss, batches, count=problem.count)
        try:
            with changed.evaluating(), torch.no_grad():
                for batch in batches:
                    if not changed.takes_model:
                        changed.outputs(pair(batch)[0])
                        continue
                    count = len(found)
                    loss = changed.batch_loss(batch)
                    if len(found) == count:  # the model was not called as a whole
                        found.append(loss)
        finally:
            hook.remove()
        return [value.detach() for value in found]

    return run


def same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether outputs agree to half the digits of their precision, relative to the largest."""
    return len(before) == len(after) and all(
        one.shape == two.shape and relative_change([one], [two]) <= tolerance(one)
        for one, two in zip(before, after, strict=True)
    )


def tolerance(outputs: Tensor) -> float:
    """The relative change of outputs that counts as none: √ε (3.5e-4 in float32).

    Rounding of a deep network stays well below; a rescaling by a factor that an activation does
    not pass on is well above.
    """
    dtype = outputs.dtype if outputs.dtype.is_floating_point else torch.float64
    return math.sqrt(torch.finfo(dtype).eps)


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Max |Δoutput| / max |output| over all outputs; infinite where one is not finite."""
    moved = max(float((two - one).abs().max()) for one, two in zip(before, after, strict=True))
    size = max(float(one.abs().max()) for one in before)
    if not math.isfinite(moved) or not math.isfinite(size):
        return math.inf
    return moved / size if size else (math.inf if moved else 0.0)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        InputError: the model can't be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a user's model may raise anything
        raise InputError(
            f"the model can't be copied by copy.deepcopy, and a changed copy is needed:"
            f" {first_line(error)}"
        ) from error
