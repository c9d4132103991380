"""Arrays in, figure out: one file a picture, no computing."""

from ssgd_analysis.plots.axis import AxisPanel, axis_figure
from ssgd_analysis.plots.bands import Line, loss_bands
from ssgd_analysis.plots.coefficients import coefficient_figure
from ssgd_analysis.plots.connection import Walk, connection_figure
from ssgd_analysis.plots.contours import Plane, loss_contours
from ssgd_analysis.plots.curves import training_curves
from ssgd_analysis.plots.density import density_figure, density_overlay
from ssgd_analysis.plots.forest import Effect, forest_figure
from ssgd_analysis.plots.intervals import interval_figure
from ssgd_analysis.plots.marks import Mark
from ssgd_analysis.plots.movie import movie
from ssgd_analysis.plots.radii import radius_curves
from ssgd_analysis.plots.save import save_figure
from ssgd_analysis.plots.scatter import metric_scatter
from ssgd_analysis.plots.surface import surface_html
from ssgd_analysis.plots.tracking import tracking_figure
from ssgd_analysis.plots.tuning import tuning_figure
from ssgd_analysis.plots.verdicts import verdict_table

__all__ = [
    "AxisPanel",
    "Effect",
    "Line",
    "Mark",
    "Plane",
    "Walk",
    "axis_figure",
    "coefficient_figure",
    "connection_figure",
    "density_figure",
    "density_overlay",
    "forest_figure",
    "interval_figure",
    "loss_bands",
    "loss_contours",
    "metric_scatter",
    "movie",
    "radius_curves",
    "save_figure",
    "surface_html",
    "tracking_figure",
    "training_curves",
    "tuning_figure",
    "verdict_table",
]
