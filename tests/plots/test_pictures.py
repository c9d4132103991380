"""Pictures at column width: all text in sight, none over another, everything shown."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from ssgd_analysis import plots
from ssgd_analysis.plots import Effect, forest, scale, style, verdicts
from ssgd_analysis.plots.style import COLUMN, DOUBLE

WIDTHS = [COLUMN, DOUBLE]
VERDICTS = list(forest.LOOKS)
LONG = [
    f"results/a-long-folder/{method} optimizer=adamw lr={lr} batch_size=128 weight_decay=0.0005"
    for method in ("s-sgd", "sam", "wni", "sgd")
    for lr in (0.05, 0.2)
]
SHORT = ["S-SGD", "SAM"]
METRICS = ["λ_max", "trace", "adaptive_worst:rho=0.5,norm=linf", "expected:law=binary", "SAM rise"]
FAR = 40.0  # an interval that leaves any axis


def effects(names):
    rng = np.random.default_rng(0)
    found = {}
    for metric in METRICS:
        found[metric] = {}
        for index, name in enumerate(names):
            value = float(rng.normal(scale=0.4))
            wide = FAR if index == 1 and metric == "trace" else float(rng.uniform(0.05, 0.4))
            found[metric][name] = Effect(
                value,
                (value - wide, value + wide),
                VERDICTS[index % 4],
                circular=metric == "SAM rise" and index % 3 == 0,
                margin=0.1,
            )
    found["λ_max"][names[0]] = Effect(None, None, "not comparable")
    return found


def forest_picture(names, width):
    return plots.forest_figure(effects(names), baseline="sgd lr=0.1", width=width)


def table_picture(names, width):
    return plots.verdict_table(effects(names), width=width)


def radius_picture(names, width):
    radii = np.array([0.01, 0.02, 0.05, 0.1, 0.2])
    lines = {
        name: (radii, (1 + i) * radii**2, np.full(5, 1e-3 if i else np.nan))
        for i, name in enumerate(names)
    }
    return plots.radius_curves(dict.fromkeys(METRICS[1:], ("rho", lines)), width=width)


def scatter_picture(names, width):
    rng = np.random.default_rng(1)
    groups = {
        name: {metric: 10 ** rng.normal(i, 1 - i % 2, size=4) for i, metric in enumerate(METRICS)}
        for name in names
    }
    groups[names[0]]["trace"][0] = np.nan
    return plots.metric_scatter(groups, width=width)


def coefficient_picture(names, width):
    rows = {
        name: ((0.3 - i / 9, (-0.4 - i / 20, 0.7)), (0.1, None)) for i, name in enumerate(names)
    }
    rows["all methods"] = ((0.2, None), None)
    outcomes = ["1 − test accuracy", "test loss − train loss", "train accuracy − test accuracy"]
    return plots.coefficient_figure(
        {outcome: dict.fromkeys(METRICS, rows) for outcome in outcomes}, width=width
    )


PICTURES = [forest_picture, table_picture, radius_picture, scatter_picture, coefficient_picture]
CASES = [(p, n, w) for p in PICTURES for n in (SHORT, LONG) for w in WIDTHS]
IDS = [f"{p.__name__}-{len(n)}-{w:g}in" for p, n, w in CASES]


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def texts(figure, renderer):
    """All text that is seen, with its place in pixels."""
    found = []
    for axes in figure.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        if axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
                found += [label for t in ticks for label in (t.label1, t.label2)]
    if figure.get_suptitle():
        found.append(figure.texts[0])
    found += [text for legend in figure.legends for text in legend.get_texts()]
    seen = [text for text in found if text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in seen]


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def picture(request):
    """A figure of a certain width and its renderer; tests must not change it."""
    make, names, width = request.param
    figure = make(names, width)
    assert figure.get_figwidth() == width
    return figure, drawn(figure)


def test_no_text_overlaps_or_leaves_the_picture(picture):
    figure, renderer = picture
    found = texts(figure, renderer)
    assert len(found) > 10
    for text, box in found:
        assert box.x0 >= -1, text  # a pixel is below what can be seen at 100 dpi
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1, text
        assert box.y1 <= figure.bbox.height + 1, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        # shrunk by a pixel: boxes hold the room of letters that reach lower
        over_x = min(a.x1, b.x1) - max(a.x0, b.x0)
        over_y = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over_x, over_y) <= 2, (one, other)


def test_readable_letters_and_room_for_the_data(picture):
    figure, renderer = picture
    assert all(box.height > 0 for _, box in texts(figure, renderer))
    sizes = [
        t.get_fontsize()
        for axes in figure.axes
        for t in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    assert min(sizes) >= 6  # points: what journals ask for at print size
    for axes in figure.axes:
        place = axes.get_window_extent(renderer)
        assert place.width / figure.dpi > 0.4
        assert place.height / figure.dpi > 0.4 or not axes.axison


@pytest.mark.parametrize("make", PICTURES)
def test_saved_as_png_and_pdf(tmp_path, make):
    for path in plots.save_figure(make(LONG, COLUMN), tmp_path / "picture"):
        assert path.stat().st_size > 2000
    assert {p.name for p in tmp_path.iterdir()} == {"picture.png", "picture.pdf"}


def marks(axes, hollow):
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    return [p for p in points if (p.get_markerfacecolor() == "white") == hollow]


def test_forest_marks_verdicts_circular_ones_and_intervals_that_leave():
    figure = forest_picture(SHORT, COLUMN)
    (axes,) = figure.axes
    assert len(marks(axes, hollow=True)) == 1
    # all but the missing difference, and two heads of arrows at the interval that leaves
    assert len(marks(axes, hollow=False)) == len(METRICS) * 2 - 1 - 1 + 2
    low, high = axes.get_xlim()
    assert low == -high
    assert high < FAR
    for point in axes.lines:
        assert np.abs(point.get_xdata()).max() <= high or len(point.get_xdata()) == 2
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "flatter",
        "sharper",
        "not comparable",
        "circular",
        "margin",
    ]


def test_forest_of_nothing_to_show():
    effect = {"λ_max": {"a": Effect(None, None, "not comparable")}}
    drawn(plots.forest_figure(effect))
    drawn(plots.verdict_table(effect))
    zero = {"λ_max": {"a": Effect(0.0, (0.0, 0.0), "no difference")}}
    assert plots.forest_figure(zero).axes[0].get_xlim() == (-1, 1)


def test_table_tells_by_colour_sign_and_bracket():
    figure = plots.verdict_table(
        {
            "λ_max": {"a": Effect(-0.25, None, "flatter"), "b": Effect(0.031, None, "sharper")},
            "SAM": {"a": Effect(1.5, None, "no difference", circular=True)},
        }
    )
    (axes,) = figure.axes
    assert {t.get_text() for t in axes.texts} >= {"-25%▼", "+3.1%▲", "(+150%)", "a", "b"}
    assert len(axes.patches) == 3


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("names", [SHORT, LONG, [name.replace(" ", "-") for name in LONG]])
def test_names_in_the_table_do_not_reach_into_cells(names, width):
    figure = plots.verdict_table(effects(names), width=width)
    renderer = drawn(figure)
    (axes,) = figure.axes
    edge = min(patch.get_window_extent(renderer).x0 for patch in axes.patches)
    heads = [t for t in axes.texts if t.get_horizontalalignment() == "left"]
    assert len(heads) % len(names) == 0  # once a block
    assert max(t.get_window_extent(renderer).x1 for t in heads) < edge
    for text in set(axes.texts) - set(heads):  # numbers stay in their cells
        box = text.get_window_extent(renderer)
        cells = [patch.get_window_extent(renderer) for patch in axes.patches]
        assert any(c.x0 <= box.x0 and box.x1 <= c.x1 for c in cells), text


def test_sixteen_groups_have_their_own_looks():
    assert len({(style.colour(i), style.marker(i)) for i in range(16)}) == 16


def test_ticks_of_a_logarithmic_axis_are_round_and_apart():
    assert scale.round_ones(0.0017, 0.03, 3) == pytest.approx([0.002, 0.01])
    assert scale.round_ones(0.02, 300.0, 3) == pytest.approx([0.1, 10.0])
    assert scale.round_ones(1.0, 1e7, 3) == pytest.approx([1.0, 1e3, 1e6])
    assert scale.short_number(1e4, 0) == "1e4"
    assert scale.short_number(2e-5, 0) == "2e−5"


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], parts))


def test_text_on_the_table_has_contrast():
    """WCAG asks for 7 between text and ground where letters are small."""
    for fill in verdicts.FILLS.values():
        assert (luminance(fill) + 0.05) / 0.05 >= 7


def test_every_verdict_has_its_own_marker_too():
    assert len({marker for _, marker in forest.LOOKS.values()}) == len(forest.LOOKS)
    assert len(set(verdicts.SIGNS.values())) == len(verdicts.SIGNS)


def test_bands_are_two_standard_errors():
    radii, values, errors = np.array([0.1, 0.2]), np.array([1.0, 2.0]), np.array([0.1, 0.3])
    figure = plots.radius_curves({"sam": ("rho", {"a": (radii, values, errors)})})
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {round(y, 9) for x, y in corners if x == 0.2} == {1.4, 2.6}


def test_a_band_that_reaches_zero_ends_below_the_logarithmic_axis():
    radii, values, errors = np.array([0.1, 0.2, 0.4]), np.array([1.0, 2.0, 9.0]), np.ones(3)
    figure = plots.radius_curves({"sam": ("rho", {"a": (radii, values, errors)})})
    panel = figure.axes[0]
    low = panel.collections[0].get_paths()[0].vertices[:, 1].min()
    # not ≤ 0, which a logarithmic axis draws as a vertical edge at the neighbour's radius
    assert 0 < low < panel.get_ylim()[0]
