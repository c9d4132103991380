"""The loss along lines and planes through weight space."""

from ssgd_analysis.landscape.directions import (
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.evaluation import EvaluationPlan, Evaluator
from ssgd_analysis.landscape.export import write_csv, write_vtk
from ssgd_analysis.landscape.grid import Grid, save_arrays
from ssgd_analysis.landscape.named_problem import NamedProblem
from ssgd_analysis.landscape.record import Landscape, fingerprint, sample_landscape
from ssgd_analysis.landscape.settings import LandscapeSettings

__all__ = [
    "EvaluationPlan",
    "Evaluator",
    "Grid",
    "Landscape",
    "LandscapeSettings",
    "NamedProblem",
    "eigen_directions",
    "fingerprint",
    "normalized",
    "random_directions",
    "sample_landscape",
    "save_arrays",
    "trajectory_directions",
    "write_csv",
    "write_vtk",
]
