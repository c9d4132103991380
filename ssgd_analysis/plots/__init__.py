"""Arrays in, figure out: one file a picture, no computing."""

from ssgd_analysis.plots.bands import loss_bands
from ssgd_analysis.plots.contours import loss_contours
from ssgd_analysis.plots.curves import training_curves
from ssgd_analysis.plots.density import density_figure
from ssgd_analysis.plots.intervals import interval_figure
from ssgd_analysis.plots.style import save_figure
from ssgd_analysis.plots.surface import surface_html
from ssgd_analysis.plots.tracking import tracking_figure

__all__ = [
    "density_figure",
    "interval_figure",
    "loss_bands",
    "loss_contours",
    "save_figure",
    "surface_html",
    "tracking_figure",
    "training_curves",
]
