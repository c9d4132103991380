"""The one loop that all methods share."""

from ssgd_analysis.training.loop import train
from ssgd_analysis.training.train_seeds import seed_folders, train_seeds

__all__ = ["seed_folders", "train", "train_seeds"]
