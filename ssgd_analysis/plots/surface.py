"""An interactive landscape in one self-contained HTML file."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ssgd_analysis.files import write_text
from ssgd_analysis.plots.style import short_names


def surface_html(
    planes: Mapping[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]],
    path: Path,
    *,
    label: str = "train loss",
) -> Path:
    """Surfaces side by side on one colour scale, or lines in one plot; needs no network.

    Args:
        planes: name → (alpha, shape (A,); beta, shape (B,), or ``None`` for a line; loss,
            shape (A, B) or (A,)).
        path: the file to write.
        label: what the values are.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    if any(beta is None for _, beta, _ in planes.values()):
        names = short_names(planes, 60)
        lines = [
            go.Scatter(x=alpha, y=loss, name=name)
            for name, (alpha, _, loss) in zip(names, planes.values(), strict=True)
        ]
        figure = go.Figure(lines)
        figure.update_layout(xaxis_title="alpha", yaxis_title=label)
    else:
        figure = _surfaces(planes, label)
    write_text(path, figure.to_html(include_plotlyjs=True, full_html=True))
    return path


def _surfaces(
    planes: Mapping[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]], label: str
) -> go.Figure:
    columns = min(len(planes), 3)
    rows = math.ceil(len(planes) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        specs=[[{"type": "surface"}] * columns] * rows,
        subplot_titles=short_names(planes, 30),
        horizontal_spacing=0.02,
        vertical_spacing=0.1 / rows,
    )
    low = min(float(np.nanmin(loss)) for _, _, loss in planes.values())
    high = max(float(np.nanmax(loss)) for _, _, loss in planes.values())
    for index, (name, (alpha, beta, loss)) in enumerate(planes.items()):
        surface = go.Surface(
            x=alpha, y=beta, z=loss.T, name=name, cmin=low, cmax=high, colorscale="Viridis",
            showscale=index == 0,
        )  # fmt: skip
        figure.add_trace(surface, row=1 + index // columns, col=1 + index % columns)
    axes = {"xaxis_title": "alpha", "yaxis_title": "beta", "zaxis_title": label}
    eye = {"x": 1.9, "y": 1.9, "z": 1.3}  # far enough that no label is cut
    figure.update_scenes(**axes, zaxis_range=[low, high], camera_eye=eye)
    figure.update_layout(height=520 * rows)
    return figure
