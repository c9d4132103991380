"""Pictures of measured sharpness from its record alone, so that they can be drawn again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.plots import density_figure, density_overlay, radius_curves, save_figure
from ssgd_analysis.plots.density import Curve
from ssgd_analysis.plots.style import OwnAxes

SPOKEN = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}


def sharpness_pictures(
    record: Mapping[str, Any], out: Path, *, names: tuple[str, str] = ("density", "curves")
) -> list[Path]:
    """Draw the spectral densities and, if there are any, the curves over the radius.

    Args:
        record: as in ``sharpness.json``.
        out: an existing folder.
        names: of the two pictures, without the ending.

    Returns:
        Paths (PNG, PDF).

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    paths = save_figure(densities(record), out / names[0])
    curves = metric_curves(record)
    return paths + (save_figure(radius_curves(curves), out / names[1]) if curves else [])


def densities(record: Mapping[str, Any], *, axes: OwnAxes = None) -> Figure:
    """The spectral density of every checkpoint with its top eigenvalues.

    Args:
        record: as in ``sharpness.json``.
        axes: the user's own, one a checkpoint.
    """
    return density_figure(_curves(record), operator=_operator(record), axes=axes)


def overlaid_densities(record: Mapping[str, Any], *, axes: OwnAxes = None) -> Figure:
    """The spectral densities of all checkpoints in one panel.

    Args:
        record: as in ``sharpness.json``.
        axes: the user's own.
    """
    return density_overlay(_curves(record), operator=_operator(record), axes=axes)


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
