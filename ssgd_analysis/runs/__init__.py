"""Run folders and checkpoints of any origin: reading and writing them, never training."""

from ssgd_analysis.runs.config import TrainConfig
from ssgd_analysis.runs.folder import Run

__all__ = ["Run", "TrainConfig"]
