"""The base optimizers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class OptimizerEntry:
    """One line of the table.

    Args:
        make: torch's class.
        lr: default learning rate.
        momentum: default momentum, or ``None`` where the optimizer has none.
    """

    make: Callable[..., torch.optim.Optimizer]
    lr: float
    momentum: float | None = None


OPTIMIZERS = {
    "sgd": OptimizerEntry(torch.optim.SGD, 0.1, 0.9),
    "adam": OptimizerEntry(torch.optim.Adam, 1e-3),
    "adamw": OptimizerEntry(torch.optim.AdamW, 1e-3),
    "rmsprop": OptimizerEntry(torch.optim.RMSprop, 1e-3, 0.0),
}


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    momentum: float | None,
    nesterov: bool,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """A base optimizer by name, with those options that it has."""
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    if OPTIMIZERS[name].momentum is not None:
        options["momentum"] = momentum
    if name == "sgd":
        options["nesterov"] = nesterov
    return OPTIMIZERS[name].make(parameters, **options)
