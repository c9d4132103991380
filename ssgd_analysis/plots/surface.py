"""An interactive landscape in one self-contained HTML file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ssgd_analysis.files import write_text


def surface_html(
    planes: Mapping[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]], path: Path
) -> Path:
    """Surfaces side by side on one colour scale, or lines in one plot; needs no network.

    Args:
        planes: name → (alpha, shape (A,); beta, shape (B,), or ``None`` for a line; loss,
            shape (A, B) or (A,)).
        path: the file to write.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    if any(beta is None for _, beta, _ in planes.values()):
        figure = go.Figure(
            [go.Scatter(x=a, y=loss, name=name) for name, (a, _, loss) in planes.items()]
        )
        figure.update_layout(xaxis_title="alpha", yaxis_title="loss")
    else:
        figure = make_subplots(
            rows=1,
            cols=len(planes),
            specs=[[{"type": "surface"}] * len(planes)],
            subplot_titles=list(planes),
        )
        low = min(float(np.nanmin(loss)) for _, _, loss in planes.values())
        high = max(float(np.nanmax(loss)) for _, _, loss in planes.values())
        for column, (name, (alpha, beta, loss)) in enumerate(planes.items(), start=1):
            surface = go.Surface(
                x=alpha, y=beta, z=loss.T, name=name, cmin=low, cmax=high, colorscale="Viridis",
                showscale=column == len(planes),
            )  # fmt: skip
            figure.add_trace(surface, row=1, col=column)
        axes = {"xaxis_title": "alpha", "yaxis_title": "beta", "zaxis_title": "loss"}
        figure.update_scenes(**axes, zaxis_range=[low, high])
    write_text(path, figure.to_html(include_plotlyjs=True, full_html=True))
    return path
