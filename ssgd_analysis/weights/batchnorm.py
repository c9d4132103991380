"""BatchNorm's running statistics, estimated anew where weights have moved."""

from collections.abc import Sequence

import torch
from torch import nn

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.weights.borrowed import borrowed_modes


def has_statistics(model: nn.Module) -> bool:
    """Whether there is a BatchNorm layer with running statistics."""
    return bool(_tracking(model))


def recalibrate_batchnorm(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Estimate BatchNorm's running statistics anew: their plain mean over these batches.

    Args:
        model: its BatchNorm buffers are changed, nothing else.
        batches: of inputs and targets; only the inputs are used.

    Raises:
        InputError: there are statistics, but batches that are no such pairs.
    """
    layers = _tracking(model)
    if not layers:
        return
    if not all(isinstance(batch, tuple | list) and len(batch) == 2 for batch in batches):
        raise InputError(
            "BatchNorm's statistics are recalibrated on (inputs, targets) pairs, which these"
            " batches are not: --bn frozen"
        )
    momenta = [layer.momentum for layer in layers]
    with borrowed_modes(model), torch.no_grad():
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.training, layer.momentum = True, None  # None: cumulative average
        try:
            for inputs, _ in batches:
                if len(inputs) > 1 or len(batches) == 1:  # one example has no variance
                    model(inputs)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum


def _tracking(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers with running statistics."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [layer for layer in layers if layer.track_running_stats]
