"""Every picture can be drawn into a user's own axes; and there is one style."""

import inspect

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssgd_analysis import plots
from ssgd_analysis.errors import InputError
from ssgd_analysis.plots import Effect, Line, Mark, Plane, style

X = np.linspace(-1, 1, 11)
BOWL = X[:, None] ** 2 + 2 * X[None, :] ** 2 + 0.01
MARKS = [Mark("here", 0.0, 0.0, 0.01)]
EFFECTS = {"λ_max": {"sam": Effect(-0.2, (-0.3, -0.1), "flatter", margin=0.1)}}
TRACKED = [
    {"step": s, "train_loss": 1.0 / (1 + s), "stability_limit": 20.0,
     "eigenvalues": [{"value": 2.0 + s, "residual": 0.0, "stderr": 0.1}]}
    for s in range(5)
]  # fmt: skip
BAND = Line(X, np.stack([X**2, 2 * X**2]), accuracy=np.ones((2, 11)), marks=[Mark("c", 0, loss=0)])

# name → (number of panels, drawn into given axes)
DRAW = {
    "axis_figure": (
        1,
        lambda **o: plots.axis_figure(
            [plots.AxisPanel("gain", {"over SGD": [(0.0, 1.0, 0.5, 1.5)]}, zero=True)],
            xlabel="batch size", ticks={0.0: "32"}, **o,
        ),
    ),
    "coefficient_figure": (
        1,
        lambda **o: plots.coefficient_figure(
            {"gap": {"λ_max": {"all": ((0.1, (0.0, 0.2)), None)}}}, **o
        ),
    ),
    "density_figure": (
        2,
        lambda **o: plots.density_figure(
            dict.fromkeys("ab", (X, np.exp(-(X**2)), np.full(11, 0.01), [0.9])), **o
        ),
    ),
    "density_overlay": (
        1,
        lambda **o: plots.density_overlay(
            dict.fromkeys("ab", (X, np.exp(-(X**2)), np.full(11, 0.01), [0.9])), **o
        ),
    ),
    "forest_figure": (1, lambda **o: plots.forest_figure(EFFECTS, baseline="sgd", **o)),
    "interval_figure": (
        2,
        lambda **o: plots.interval_figure(
            {"": {label: {"sgd": (0.5, (0.4, 0.6), [0.5])} for label in ("λ_max", "trace")}}, **o
        ),
    ),
    "loss_bands": (4, lambda **o: plots.loss_bands({"a": {"x": BAND}, "b": {"x": BAND}},
                                                   xlabel="α", notes=["seed 0"], **o)),
    "loss_contours": (
        3,
        lambda **o: plots.loss_contours(
            {"a": Plane(X, X, BOWL, MARKS), "b": Plane(X, X, 2 * BOWL)},
            accuracies={"a": Plane(X, X, BOWL)},
            notes=["seed 0"],
            **o,
        ),
    ),
    "metric_scatter": (
        3,
        lambda **o: plots.metric_scatter(
            {"sgd": {"λ_max": [1.0, 2.0], "trace": [1.0, 3.0], "accuracy": [0.9, 0.8]}}, **o
        ),
    ),
    "radius_curves": (
        1,
        lambda **o: plots.radius_curves(
            {"sam": ("rho", {"a": (np.array([0.1, 0.2]), np.ones(2), np.ones(2) / 9)})}, **o
        ),
    ),
    "tracking_figure": (2, lambda **o: plots.tracking_figure(TRACKED, **o)),
    "training_curves": (
        2,
        lambda **o: plots.training_curves(
            {"": {"sgd": (X, np.ones((2, 11)), np.ones((2, 11)) / 2)}}, **o
        ),
    ),
    "tuning_figure": (
        2,
        lambda **o: plots.tuning_figure(
            {"": {name: {"S-SGD": ([0.1, 1.0], [0.9, 0.1], 0)} for name in ("lr", "c")}},
            log={"lr": True}, **o,
        ),
    ),
    "verdict_table": (1, lambda **o: plots.verdict_table(EFFECTS, **o)),
}  # fmt: skip


def takes_axes(name):
    made = getattr(plots, name)
    return inspect.isfunction(made) and "axes" in inspect.signature(made).parameters


def test_every_function_that_draws_with_matplotlib_takes_axes():
    functions = {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}
    written = {"save_figure", "surface_html", "movie"}  # files
    assert all(takes_axes(name) for name in functions - written)
    own_test = {"connection_figure"}
    assert functions - written - own_test == set(DRAW)


@pytest.mark.parametrize("name", DRAW)
def test_drawn_into_given_axes_and_nothing_else_changes(name):
    count, draw = DRAW[name]
    figure = Figure(figsize=(9, 4))
    given = figure.subplots(1, count + 1)
    inside, beside = given[:count], given[count]
    places = [axes.get_position().bounds for axes in given]
    settings = dict(mpl.rcParams)
    made = draw(axes=inside[0] if count == 1 else inside)
    FigureCanvasAgg(figure).draw()
    assert made is figure
    assert list(figure.axes) == list(given)
    assert all(axes.has_data() or axes.texts for axes in inside)
    assert not beside.has_data()
    assert figure.get_size_inches().tolist() == [9, 4]
    assert figure.legends == []
    assert figure.texts == []
    assert figure.get_suptitle() == ""
    assert figure.get_layout_engine() is None
    assert dict(mpl.rcParams) == settings
    for axes, place in zip(given, places, strict=True):
        assert axes.get_position(original=True).bounds == pytest.approx(place)


def test_small_print_stands_below_the_label_of_the_axis():
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    axes.set_position([0.2, 0.5, 0.7, 0.4])
    axes.set_xlabel("two lines\nof a large label", size=14)
    style.small_print(figure, ["the settings"], axes)
    FigureCanvasAgg(figure).draw()
    (text,) = axes.texts
    apart = axes.xaxis.get_tightbbox().y0 - text.get_window_extent().y1
    assert 0 < apart < 20  # pixels


@pytest.mark.parametrize("name", DRAW)
def test_a_wrong_number_of_axes_is_said(name):
    count, draw = DRAW[name]
    given = list(Figure().subplots(1, count + 1))
    with pytest.raises(InputError, match=rf"axes: {count + 1} given, .* has {count} panel"):
        draw(axes=given)
    with pytest.raises(InputError, match="give matplotlib Axes"):
        draw(axes=["no axes"] * count)


def test_axes_of_a_subfigure_give_the_whole_figure():
    figure = Figure()
    part = figure.subfigures(1, 2)[0]
    assert DRAW["forest_figure"][1](axes=part.subplots()) is figure


def test_the_style_is_one_file_and_all_of_it_holds():
    read = mpl.rc_params_from_file(
        style.Path(style.__file__).with_name("ssgd.mplstyle"), use_default_template=False
    )
    assert read["pdf.fonttype"] == 42  # letters stay letters
    assert read["axes.prop_cycle"].by_key()["color"] == style.COLOURS

    @style.styled
    def seen():
        return {key: mpl.rcParams[key] for key in read}

    assert seen() == dict(read)
    figure = DRAW["training_curves"][1]()
    assert figure.axes[0].title.get_fontsize() == read["axes.titlesize"]
    assert not figure.axes[0].spines["top"].get_visible()
