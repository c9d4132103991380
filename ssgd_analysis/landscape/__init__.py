"""The loss along lines and planes through weight space."""

from ssgd_analysis.landscape.connections import (
    Barrier,
    ConnectionSettings,
    Matching,
    barrier,
    connect,
    evaluate_path,
    line,
    train_curve,
    weight_matching,
)
from ssgd_analysis.landscape.directions import (
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.evaluation import EvaluationPlan, Evaluator
from ssgd_analysis.landscape.export import write_csv, write_vtk
from ssgd_analysis.landscape.grid import Grid, save_arrays
from ssgd_analysis.landscape.sample import Landscape, fingerprint, sample_landscape
from ssgd_analysis.landscape.settings import LandscapeSettings
from ssgd_analysis.landscape.subject import Subject

__all__ = [
    "Barrier",
    "ConnectionSettings",
    "EvaluationPlan",
    "Evaluator",
    "Grid",
    "Landscape",
    "LandscapeSettings",
    "Matching",
    "Subject",
    "barrier",
    "connect",
    "eigen_directions",
    "evaluate_path",
    "fingerprint",
    "line",
    "normalized",
    "random_directions",
    "sample_landscape",
    "save_arrays",
    "train_curve",
    "trajectory_directions",
    "weight_matching",
    "write_csv",
    "write_vtk",
]
