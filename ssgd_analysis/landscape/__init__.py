"""The loss along lines and planes through weight space."""

from ssgd_analysis.landscape.directions import (
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.evaluation import EvaluationPlan, Evaluator
from ssgd_analysis.landscape.grid import Grid, save_arrays
from ssgd_analysis.landscape.sample import Landscape, fingerprint, sample_landscape
from ssgd_analysis.landscape.settings import LandscapeSettings
from ssgd_analysis.landscape.subject import Subject

__all__ = [
    "EvaluationPlan",
    "Evaluator",
    "Grid",
    "Landscape",
    "LandscapeSettings",
    "Subject",
    "eigen_directions",
    "fingerprint",
    "normalized",
    "random_directions",
    "sample_landscape",
    "save_arrays",
    "trajectory_directions",
]
