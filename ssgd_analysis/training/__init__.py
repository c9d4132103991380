"""The one loop that all methods share, and the run folder it leaves."""

from ssgd_analysis.training.config import TrainConfig
from ssgd_analysis.training.loop import train
from ssgd_analysis.training.run import Run
from ssgd_analysis.training.together import train_together

__all__ = ["Run", "TrainConfig", "train", "train_together"]
