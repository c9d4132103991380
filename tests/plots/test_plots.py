"""Every picture can be drawn and saved, and no text in it overlaps another."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ssgd_analysis import plots

RNG = np.random.default_rng(0)
X = np.linspace(-1, 1, 11)
NAMES = ["SGD", "SGD 2×", "WNI", "WNI-2", "S-SGD", "SAM"]


def bands():
    lines = {name: (X, RNG.random((4, 11)) + X**2) for name in NAMES}
    return plots.loss_bands({"small batch": lines, "large batch": lines}, xlabel="α", rise=True)


def contours():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    planes = {name: (X, X, plane * (1 + i)) for i, name in enumerate(NAMES)}
    return plots.loss_contours(planes)


def contours_with_zero_loss():
    return plots.loss_contours({"zero": (X, X, np.zeros((11, 11)))})


def curves():
    one = (np.arange(1, 21) * 40, RNG.random((3, 20)) + 0.3, RNG.random((3, 20)) / 10 + 0.9)
    return plots.training_curves({s: dict.fromkeys(NAMES, one) for s in ("small", "large")})


LONG = [f"results/experiments/{'a-long-folder-name/' * 3}method-{m}-seed0" for m in "abcd"]


def bands_of_long_names():
    return plots.loss_bands({"": dict.fromkeys(LONG, (X, X[None] ** 2))}, xlabel="α")


def contours_of_long_names():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    return plots.loss_contours(dict.fromkeys(LONG, (X, X, plane)))


def contour_of_one_long_name():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    return plots.loss_contours({LONG[0] * 2: (X, X, plane)})


def density():
    one = (X, np.exp(-(X**2)), np.full(11, 0.01), [0.8, 0.9])
    return plots.density_figure({"runs/a": one, "runs/b": one})


def intervals():
    row = (0.95, (0.94, 0.96), [0.945, 0.95, 0.955])
    single = (0.95, None, [0.95])
    rows = {**dict.fromkeys(NAMES, row), "one seed": single}
    return plots.interval_figure({s: {"λ_max": rows, "accuracy": rows} for s in ("a", "b")})


FIGURES = [
    bands,
    bands_of_long_names,
    contours,
    contours_of_long_names,
    contour_of_one_long_name,
    contours_with_zero_loss,
    curves,
    density,
    intervals,
]


@pytest.mark.parametrize("make", FIGURES)
def test_saved_as_png_and_pdf(tmp_path, make):
    for path in plots.save_figure(make(), tmp_path / "picture"):
        assert path.stat().st_size > 2000
    assert {p.name for p in tmp_path.iterdir()} == {"picture.png", "picture.pdf"}


@pytest.mark.parametrize("make", FIGURES)
def test_no_labels_overlap(make):
    figure = make()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    titles = [axes.title.get_window_extent(renderer) for axes in figure.axes if axes.get_title()]
    legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    for a, b in itertools.combinations(titles, 2):
        assert not a.overlaps(b)
    for box in (*titles, *legends):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [
                label.get_window_extent(renderer)
                for label in axis.get_ticklabels()
                if label.get_visible() and label.get_text()
            ]
            for a, b in itertools.pairwise(sorted(boxes, key=lambda box: (box.x0, box.y0))):
                assert not a.overlaps(b), (axes.get_title(), a, b)


def test_surface_is_self_contained(tmp_path):
    plane = X[:, None] ** 2 + X[None, :] ** 2
    path = plots.surface_html({"a": (X, X, plane), "b": (X, X, plane)}, tmp_path / "s.html")
    page = path.read_text(encoding="utf-8")
    assert "<script src=" not in page
    assert "Plotly.newPlot" in page
    plots.surface_html({"line": (X, None, X**2)}, tmp_path / "l.html")
