"""What is trained, and the losses it is trained on."""

from ssgd_analysis.models.load import MODELS, ModelEntry, load_model
from ssgd_analysis.models.losses import LOSSES, Loss, load_count, load_loss, placed_loss

__all__ = [
    "LOSSES",
    "MODELS",
    "Loss",
    "ModelEntry",
    "load_count",
    "load_loss",
    "load_model",
    "placed_loss",
]
