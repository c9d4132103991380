"""The loss along lines and planes through weight space."""

from ssgd_analysis.landscapes.compute import landscape
from ssgd_analysis.landscapes.directions import (
    eigen_directions,
    normalized_directions,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscapes.evaluation import EvaluationPlan, Evaluator
from ssgd_analysis.landscapes.export import write_csv, write_vtk
from ssgd_analysis.landscapes.grid import Grid
from ssgd_analysis.landscapes.named_problem import NamedProblem
from ssgd_analysis.landscapes.record import LandscapeRecord
from ssgd_analysis.settings.landscape import LandscapeSettings

__all__ = [
    "EvaluationPlan",
    "Evaluator",
    "Grid",
    "LandscapeRecord",
    "LandscapeSettings",
    "NamedProblem",
    "eigen_directions",
    "landscape",
    "normalized_directions",
    "random_directions",
    "trajectory_directions",
    "write_csv",
    "write_vtk",
]
