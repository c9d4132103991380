"""Pictures of measured sharpness from its record alone, so that they can be drawn again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.pictures.paper import paper_of, unequal_losses
from ssgd_analysis.plots import density_figure, density_overlay, radius_curves, save_figure
from ssgd_analysis.plots.density import Curve
from ssgd_analysis.plots.style import OwnAxes, on_paper, short_names
from ssgd_analysis.settings.pictures import PictureSettings

SPOKEN = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}


def sharpness_pictures(
    record: Mapping[str, Any],
    out: Path,
    *,
    names: tuple[str, str] = ("density", "curves"),
    style: PictureSettings | None = None,
) -> list[Path]:
    """Draw the spectral densities and, if there are any, the curves over the radius.

    Args:
        record: as in ``sharpness.json``.
        out: an existing folder.
        names: of the two pictures, without the ending.
        style: how they look.

    Returns:
        Paths (PNG, PDF).

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    with on_paper(paper_of(style)):
        figures = [densities(record)]
        if curves := metric_curves(record):
            figures.append(radius_curves(curves, notes=_caveat(record)))
    pairs = zip(figures, names, strict=False)
    return [path for figure, name in pairs for path in save_figure(figure, out / name)]


def _caveat(record: Mapping[str, Any]) -> list[str]:
    """Whether the checkpoints fit unequally well."""
    names = short_names([one["checkpoint"] for one in record["checkpoints"]], 40)
    losses = [one.get("loss") for one in record["checkpoints"]]
    return [unequal_losses(dict(zip(names, losses, strict=True)))]


def densities(record: Mapping[str, Any], *, axes: OwnAxes = None) -> Figure:
    """The spectral density of every checkpoint with its top eigenvalues.

    Args:
        record: as in ``sharpness.json``.
        axes: the user's own, one a checkpoint.
    """
    return density_figure(
        _curves(record), operator=_operator(record), notes=_caveat(record), axes=axes
    )


def overlaid_densities(record: Mapping[str, Any], *, axes: OwnAxes = None) -> Figure:
    """The spectral densities of all checkpoints in one panel.

    Args:
        record: as in ``sharpness.json``.
        axes: the user's own.
    """
    return density_overlay(
        _curves(record), operator=_operator(record), notes=_caveat(record), axes=axes
    )


def _curves(record: Mapping[str, Any]) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for result in record["checkpoints"]:
        density = result["density"]
        columns = [np.asarray(density[key]) for key in ("grid", "density", "stderr")]
        top = [pair["value"] for pair in result["eigenvalues"]]
        curves[result["checkpoint"]] = (columns[0], columns[1], columns[2], top)
    return curves


def _operator(record: Mapping[str, Any]) -> str:
    name = record["checkpoints"][0]["operator"]
    return SPOKEN.get(name, name)


def metric_curves(record: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics over their radii, for :func:`ssgd_analysis.plots.radius_curves`; may be empty."""
    curves: dict[str, Any] = {}
    for result in record["checkpoints"]:
        for name, found in result["metrics"].items():
            if curve := found.get("curve"):
                keys = ("radii", "values", "stderr")  # what is None becomes NaN
                lines = curves.setdefault(NAMES.get(name, name), (curve["over"], {}))[1]
                lines[result["checkpoint"]] = tuple(np.array(curve[key], float) for key in keys)
    return curves
