"""The one loop that all methods share."""

from ssgd_analysis.training.loop import train

__all__ = ["train"]
