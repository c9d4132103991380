"""The loss along lines and planes through weight space."""

from ssgd_analysis.landscape.directions import (
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.landscape.export import write_csv, write_vtk
from ssgd_analysis.landscape.sample import (
    LandscapeSettings,
    Subject,
    fingerprint,
    sample_landscape,
    save_arrays,
)
from ssgd_analysis.landscape.surface import Grid, evaluate_grid

__all__ = [
    "Grid",
    "LandscapeSettings",
    "Subject",
    "eigen_directions",
    "evaluate_grid",
    "fingerprint",
    "normalized",
    "random_directions",
    "sample_landscape",
    "save_arrays",
    "trajectory_directions",
    "write_csv",
    "write_vtk",
]
