"""Every picture can be drawn and saved, and no text in it overlaps another."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ssgd_analysis import plots
from ssgd_analysis.plots import Line, Plane, style

RNG = np.random.default_rng(0)
X = np.linspace(-1, 1, 11)
NAMES = ["SGD", "SGD 2×", "WNI", "WNI-2", "S-SGD", "SAM"]


def bands():
    lines = {name: Line(X, RNG.random((4, 11)) + X**2) for name in NAMES}
    return plots.loss_bands({"small batch": lines, "large batch": lines}, xlabel="α")


def contours():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    planes = {name: Plane(X, X, plane * (1 + i)) for i, name in enumerate(NAMES)}
    return plots.loss_contours(planes)


def contours_with_zero_loss():
    return plots.loss_contours({"zero": Plane(X, X, np.zeros((11, 11)))})


def curves():
    one = (np.arange(1, 21) * 40, RNG.random((3, 20)) + 0.3, RNG.random((3, 20)) / 10 + 0.9)
    return plots.training_curves({s: dict.fromkeys(NAMES, one) for s in ("small", "large")})


LONG = [f"results/experiments/{'a-long-folder-name/' * 3}method-{m}-seed0" for m in "abcd"]


def bands_of_long_names():
    return plots.loss_bands({"": dict.fromkeys(LONG, Line(X, X[None] ** 2))}, xlabel="α")


def contours_of_long_names():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    return plots.loss_contours(dict.fromkeys(LONG, Plane(X, X, plane)))


def contour_of_one_long_name():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    return plots.loss_contours({LONG[0] * 2: Plane(X, X, plane)})


def density():
    one = (X, np.exp(-(X**2)), np.full(11, 0.01), [0.8, 0.9])
    return plots.density_figure({"runs/a": one, "runs/b": one})


def intervals():
    row = (0.95, (0.94, 0.96), [0.945, 0.95, 0.955])
    single = (0.95, None, [0.95])
    rows = {**dict.fromkeys(NAMES, row), "one seed": single}
    return plots.interval_figure({s: {"λ_max": rows, "accuracy": rows} for s in ("a", "b")})


def contours_in_two_rows():
    plane = X[:, None] ** 2 + 2 * X[None, :] ** 2
    return plots.loss_contours(dict.fromkeys("abcd", Plane(X, X, plane)))


def intervals_of_long_names():
    row = (0.95, (0.94, 0.96), [0.945, 0.95, 0.955])
    return plots.interval_figure({"": dict.fromkeys(["λ_max", "trace"], dict.fromkeys(LONG, row))})


FIGURES = [
    contours_in_two_rows,
    intervals_of_long_names,
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
    whole = figure.get_tightbbox(renderer)
    assert whole.x0 >= 0
    assert whole.y0 >= 0
    assert whole.x1 <= figure.get_figwidth()
    assert whole.y1 <= figure.get_figheight()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [
                label.get_window_extent(renderer)
                for label in axis.get_ticklabels()
                if label.get_visible() and label.get_text()
            ]
            for a, b in itertools.pairwise(sorted(boxes, key=lambda box: (box.x0, box.y0))):
                assert not a.overlaps(b), (axes.get_title(), a, b)


def labels(figure):
    return [axes.get_xlabel() for axes in figure.axes if axes.get_visible()][:-1]  # the bar's


def test_four_planes_are_two_and_two():
    assert labels(contours_in_two_rows()) == ["", "", "α", "α"]
    assert labels(contours()) == ["", "", "", "α", "α", "α"]


def test_long_names_do_not_shrink_the_intervals():
    widths = []
    for figure in (intervals(), intervals_of_long_names()):
        FigureCanvasAgg(figure).draw()
        widths.append(figure.axes[0].get_position().width * figure.get_figwidth())
    assert widths[1] > 0.9 * widths[0]


@pytest.mark.parametrize(
    "names",
    [
        ["results/exp-a/" + "long/" * 20 + "run", "results/exp-b/" + "long/" * 20 + "run"],
        [f"{'x' * 50}-seed{seed}-{'y' * 50}" for seed in range(12)],
        [f"{'x' * 50}{a}{'y' * 50}{b}{'z' * 50}" for a in "ab" for b in "ab"],
        ["x" * 60, "short", "y" * 28],
    ],
)
def test_short_names_stay_distinct(names):
    short = style.short_names(names, 28)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= 28


def test_short_names_keep_what_tells_them_apart():
    assert style.short_names(["a/b/one", "a/b/two"], 28) == ["one", "two"]
    assert style.short_names(["a/" * 20 + "one"], 28) == ["a/one"]
    assert style.short_names(["/tmp/x/sgd", "/home/me/sam"], 28) == ["sgd", "sam"]
    folders = [f"results/exp-{m}/{'long-name/' * 6}run" for m in "ab"]
    assert style.short_names(folders, 20) == ["exp-a/long…-name/run", "exp-b/long…-name/run"]
    inside = [f"{'x' * 50}-seed{seed}-{'y' * 50}" for seed in (1, 2)]
    assert ["seed1" in name for name in style.short_names(inside, 28)] == [True, False]
    method = [f"run-with-many-options-lr0.1-{m}-and-more-of-it-to-come" for m in ("sgd", "s-sgd")]
    short = style.short_names(method, 18)
    assert ["-sgd-" in short[0], "-s-sgd-" in short[1]] == [True, True]  # no half words
    assert max(map(len, short)) <= 18


def test_names_fit_into_inches():
    names = [f"{'MW' * 20}-{m}-{'MW' * 20}" for m in ("sgd", "sam")]
    for room in (0.8, 1.5, 9.0):
        found = style.fitting_names(names, room)
        assert max(map(style.inches, found)) <= room
        assert ["sgd" in found[0], "sam" in found[1]] == [True, True]
    assert found == names
