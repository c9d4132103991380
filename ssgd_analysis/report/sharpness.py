"""Pictures of measured sharpness from its record alone, so that they can be drawn again."""

from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.plots import density_figure, radius_curves, save_figure
from ssgd_analysis.plots.metric_names import NAMES

SPOKEN = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}


def sharpness_pictures(
    record: dict[str, Any], out: Path, *, names: tuple[str, str] = ("density", "curves")
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
    panels = {}
    curves: dict[str, Any] = {}
    for result in record["checkpoints"]:
        density = result["density"]
        columns = [np.asarray(density[key]) for key in ("grid", "density", "stderr")]
        top = [pair["value"] for pair in result["eigenvalues"]]
        panels[result["checkpoint"]] = (columns[0], columns[1], columns[2], top)
        for name, found in result["metrics"].items():
            if curve := found.get("curve"):
                keys = ("radii", "values", "stderr")  # what is None becomes NaN
                lines = curves.setdefault(NAMES.get(name, name), (curve["over"], {}))[1]
                lines[result["checkpoint"]] = tuple(np.array(curve[key], float) for key in keys)
    operator = record["checkpoints"][0]["operator"]
    figure = density_figure(panels, operator=SPOKEN.get(operator, operator))
    paths = save_figure(figure, out / names[0])
    return paths + (save_figure(radius_curves(curves), out / names[1]) if curves else [])
