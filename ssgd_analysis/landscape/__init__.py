"""The loss along lines and planes through weight space."""

from ssgd_analysis.landscape.directions import (
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.surface import Grid, evaluate_grid

__all__ = [
    "Grid",
    "eigen_directions",
    "evaluate_grid",
    "normalized",
    "random_directions",
    "trajectory_directions",
]
