"""Early stopping: the weights of the epoch with the lowest loss on held-out examples."""

from typing import Any

import torch
from torch import Tensor, nn

# the entries of a record that describe the weights, not the training so far
OF_THE_WEIGHTS = {
    f"{split}_{what}" for split in ("train", "test", "val") for what in ("loss", "accuracy")
} | {"weight_norm"}


class EarlyStop:
    """Keeps the best epoch's weights, and says when to stop; the same for every method.

    Args:
        patience: epochs without a lower ``val_loss`` after which training is over; 0: never, and
            no weights are stored.
        epochs: of the whole training.
    """

    def __init__(self, patience: int, epochs: int) -> None:
        self.patience, self.epochs = patience, epochs
        self.over = False
        self.best: dict[str, Any] = {}  # its record
        self.weights: dict[str, Tensor] = {}

    def update(self, record: dict[str, Any], model: nn.Module) -> dict[str, Any]:
        """Take note of an epoch.

        After the last one the model gets the best epoch's weights.

        Args:
            record: of the epoch.
            model: holds the weights that it is of.

        Returns:
            The record with ``best_epoch``; the last one describes the best epoch's weights.
        """
        if not self.patience:
            return record
        if not self.best or record["val_loss"] < self.best["val_loss"]:
            self.best = record
            self.weights = {name: value.clone() for name, value in _held(model).items()}
        self.over = record["epoch"] - self.best["epoch"] >= self.patience
        record = {**record, "best_epoch": self.best["epoch"]}
        if not self.over and record["epoch"] < self.epochs:
            return record
        self.restore_best(model)
        return {**record, **{key: self.best[key] for key in OF_THE_WEIGHTS & self.best.keys()}}

    @torch.no_grad()
    def restore_best(self, model: nn.Module) -> None:
        """Put the best epoch's weights into the model, if any were stored."""
        held = _held(model)
        for name, value in self.weights.items():
            held[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What resume needs."""
        return {"over": self.over, "best": self.best, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of :meth:`state_dict`."""
        self.over, self.best, self.weights = state["over"], state["best"], state["weights"]


def _held(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those outside the state dict too."""
    return {name: value.detach() for name, value in model.named_parameters()} | dict(
        model.named_buffers()
    )
