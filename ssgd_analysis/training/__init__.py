"""The one loop that all methods share."""

from ssgd_analysis.training.loop import train
from ssgd_analysis.training.together import train_together

__all__ = ["train", "train_together"]
