"""Which of a step's passes update BatchNorm's running statistics."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.problem.loss import call_loss
from ssgd_analysis.streams import Stream
from ssgd_analysis.weights import borrowed_buffers
from ssgd_analysis.weights.batchnorm import recalibrate_batchnorm, recalibrated_layers

POLICIES = ("first", "clean", "both", "frozen")


def bn_statistics(model: nn.Module, policy: str, pass_index: int) -> AbstractContextManager[None]:
    """The context for one of a step's passes.

    - ``first``: the first pass updates the statistics, the others do not;
    - ``clean``: none does (the method makes a clean forward pass for them);
    - ``both``: every pass does;
    - ``frozen``: BatchNorm uses its running statistics and never changes them (fine-tuning).

    Args:
        model: whose buffers to guard.
        policy: see above.
        pass_index: 0 for the first pass of the step.
    """
    if policy == "frozen":
        return _frozen(model)
    if policy == "both" or (policy == "first" and pass_index == 0):
        return nullcontext()
    return borrowed_buffers(model)


def recalibrate(passes: Passes, batches: Sequence[Batch]) -> None:
    """Compute BatchNorm's statistics for the model's present weights; the pass is counted.

    Args:
        passes: its model's BatchNorm buffers are changed.
        batches: of the training examples; if there are none, nothing is done.
    """
    if batches and recalibrated_layers(passes.model):
        forward = _forward(passes) if passes.takes_model or isinstance(batches, Stream) else None
        recalibrate_batchnorm(passes.model, batches, forward=forward)
        passes.count_forward(sum(passes.size(batch) for batch in batches))


def _forward(passes: Passes) -> Callable[[Batch], Any]:
    """Pass a batch through the model, as its loss of (model, batch) does if it is one."""

    def forward(batch: Batch) -> Any:
        if not passes.takes_model:
            return passes.model(pair(batch)[0])
        with torch.enable_grad():  # a loss may differentiate by its inputs
            return call_loss(passes.loss, passes.model, batch)

    return forward


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True
