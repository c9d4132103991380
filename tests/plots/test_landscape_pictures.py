"""Pictures of landscapes, from records: what they show, say, and leave out."""

import json

import numpy as np
import pytest
from landscape_records import CENTRE, CURVATURE, landscape, quadratic
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import QuadContourSet
from matplotlib.patches import Rectangle
from PIL import Image

from ssgd_analysis import plots
from ssgd_analysis.pictures import landscape as module
from ssgd_analysis.pictures.landscape import landscape_pictures
from ssgd_analysis.pictures.landscape_notes import landscape_notes
from ssgd_analysis.plots import Line, Mark, Plane
from ssgd_analysis.plots.scale import loss_scale
from ssgd_analysis.plots.words import percent
from ssgd_analysis.settings.pictures import PictureSettings

X = np.linspace(-1, 1, 11)
BOWL = 0.1 + X[:, None] ** 2 + 2 * X[None, :] ** 2
LONG = tuple(f"results/{'a-long-folder-name/' * 3}method-{m}-seed0" for m in "abcd")
WIDE = tuple(f"results/{'MW-' * 12}{m}{'-MW' * 12}/final" for m in ("sgd", "sam"))
FOUR = ("sgd", "sam", "s-sgd", "wni")

CASES = {
    "line": landscape(),
    "bands of four": landscape(names=FOUR, repeats=3),
    "four long names, train and test": landscape(names=LONG, split="both"),
    "eigenvector, train and test": landscape("eigen", split="both"),
    "eigenvectors of two, no classes": landscape("eigen", names=FOUR[:2], classes=False),
    "between": landscape("between", names=FOUR[:2], split="both"),
    "between long names": landscape("between", names=LONG[:2]),
    "line of a trajectory": landscape("trajectory"),
    "plane": landscape(dims=2),
    "plane of train and test": landscape(dims=2, split="both"),
    "planes of four long names": landscape(dims=2, names=LONG, split="both"),
    "planes of two wide names": landscape(dims=2, names=WIDE, split="both"),
    "two planes of wide names": landscape(dims=2, names=WIDE),
    "nine planes": landscape(dims=2, names=tuple("abcdefghi"), classes=False),
    "three draws": landscape(dims=2, repeats=3, classes=False),
    "more draws than fit": landscape(dims=2, names=FOUR, repeats=5, classes=False),
    "plane of eigenvectors": landscape("eigen", dims=2, names=("sgd", "s-sgd")),
    "plane of a trajectory": landscape("trajectory", dims=2),
    "plane of trajectories": landscape("trajectory", dims=2, names=FOUR[:2]),
    "plane between three": landscape("between", dims=2, names=FOUR[:3]),
    "adaptive": landscape(dims=2, adaptive=True),
}


@pytest.fixture(scope="module")
def drawn():
    """Figures of a case by the ending of their file's name, each drawn once."""
    made = {}

    def draw(case):
        if case not in made:
            found = {}
            with pytest.MonkeyPatch.context() as patch:

                def keep(figure, stem, **_):
                    found[stem.name] = figure
                    return [stem]

                patch.setattr(module, "save_figure", keep)
                landscape_pictures(*CASES[case], module.Path("p"))
            for figure in found.values():
                figure.set_dpi(150)  # as it is saved: letters are wider than at 100
                FigureCanvasAgg(figure).draw()
            made[case] = found
        return made[case]

    return draw


def print_of(figure):
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def boxes(figure):
    """All that is written outside of panels or in them, by what it says."""
    renderer = figure.canvas.get_renderer()
    found = []
    for axes in figure.axes:
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            texts += [label for t in ticks for label in (t.label1, t.label2)]
        found += [t for t in texts if t.get_visible() and t.get_text()]
    found += figure.texts
    found += [text for legend in figure.legends for text in legend.get_texts()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_or_leaves_the_picture(drawn, case):
    for figure in drawn(case).values():
        found = boxes(figure)
        assert len(found) > 5
        for index, (text, a) in enumerate(found):
            assert a.x0 >= -1, text
            assert a.y0 >= -1, text
            assert a.x1 <= figure.bbox.width + 1, text
            assert a.y1 <= figure.bbox.height + 1, text
            for other, b in found[index + 1 :]:
                # two pixels: boxes hold the room of letters that reach lower
                across = min(a.x1, b.x1) - max(a.x0, b.x0)
                assert min(across, min(a.y1, b.y1) - max(a.y0, b.y0)) <= 2, (text, other)


@pytest.mark.parametrize("case", CASES)
def test_widths_of_a_paper_and_settings_in_the_small_print(drawn, case):
    for figure in drawn(case).values():
        assert figure.get_figwidth() < 7.1  # inches: a page's width
        for axes in figure.axes:
            if axes.get_label() != "<colorbar>":
                assert axes.get_window_extent().width / figure.dpi > 0.9, "inches"
        text = print_of(figure)
        both = CASES[case][0]["split"] == "both"
        count = "1,437 train, 360 test examples" if both else "1,437 examples"
        for word in (count, "seed 0", "BatchNorm frozen", "21"):
            assert word in text


def test_the_small_print_says_what_a_plane_sees(drawn):
    assert "this plane sees 3% of λ_max" in print_of(drawn("plane")["p"])
    assert "these planes see 3% of λ_max" in print_of(drawn("plane of eigenvectors")["p"])
    assert "rms error 0.012, largest seen 0.045 at 9 points held out" in print_of(
        drawn("adaptive")["p"]
    )
    measured = CASES["adaptive"][1]["measured"]
    assert f"interpolated from {measured.sum()} of 441 points" in print_of(drawn("adaptive")["p"])
    assert "5 draws, the first shown" in print_of(drawn("more draws than fit")["p"])
    assert "quantiles of 3 directions" in print_of(drawn("bands of four")["p"])


def lines(axes, style):
    return [line for line in axes.lines if line.get_linestyle() == style]


def test_lines_show_the_arrays_train_solid_and_test_dashed(drawn):
    _, arrays = CASES["four long names, train and test"]
    loss, accuracy = drawn("four long names, train and test")["p"].axes
    for style, prefix in (("-", ""), ("--", "test_")):
        for axes, name, unit in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
            seen = [line.get_ydata() for line in lines(axes, style)]
            seen = [y for y in seen if len(y) == 21]
            np.testing.assert_array_equal(seen, unit * arrays[prefix + name])
    assert loss.get_yscale() == "log"
    assert accuracy.get_yscale() == "linear"
    assert accuracy.get_xlabel() == "α, fraction of each filter's norm"


def test_bands_are_the_quantiles_of_the_draws(drawn):
    _, arrays = CASES["bands of four"]
    loss = drawn("bands of four")["p"].axes[0]
    for band, values in zip(loss.collections, arrays["loss"], strict=True):
        corners = band.get_paths()[0].vertices
        seen = np.unique(corners[np.isclose(corners[:, 0], arrays["alpha"][3]), 1])
        np.testing.assert_allclose(seen[[0, -1]], np.quantile(values[:, 3], [0.1, 0.9]))


def test_a_parabola_is_what_slope_and_curvature_predict(drawn):
    alpha = np.linspace(*CASES["eigenvector, train and test"][1]["alpha"][[0, -1]], 201)
    figure = drawn("eigenvector, train and test")["p"]
    (line,) = lines(figure.axes[0], "-.")
    np.testing.assert_allclose(line.get_xdata(), alpha)  # finer than what was measured
    np.testing.assert_allclose(line.get_ydata(), quadratic(alpha), rtol=1e-12)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["train", "test", f"predicted, λ = {CURVATURE[0]:g}"]


def test_cuts_of_an_eigen_plane_with_both_parabolas(drawn):
    alpha = CASES["plane of eigenvectors"][1]["alpha"]
    first, second = drawn("plane of eigenvectors")["p-axes"].axes
    fine = np.linspace(alpha[0], alpha[-1], 201)
    for axes, parabola in ((first, quadratic), (second, lambda b: quadratic(0.0, b))):
        own, other = [line.get_ydata() for line in lines(axes, "-.")]
        np.testing.assert_allclose(own, parabola(fine), rtol=1e-12)
        np.testing.assert_allclose(other, 2 * parabola(fine), rtol=1e-12)
        expected = parabola(alpha)
        solid = [y for y in (line.get_ydata() for line in lines(axes, "-")) if len(y) == 21]
        np.testing.assert_allclose(solid[0], expected + 4 * alpha**4, rtol=1e-12)
    texts = [t.get_text() for t in first.figure.legends[0].get_texts()]
    assert texts[2:] == [
        "sgd: predicted, λ₁ = 12, λ₂ = 3", "s-sgd: predicted, λ₁ = 24, λ₂ = 6",
    ]  # fmt: skip


def test_the_prediction_in_a_plane_has_the_mixed_term():
    facts = landscape("eigen", dims=2)[0]["grids"][0]
    seen = module.prediction(facts, X[:, None], X[None, :])
    np.testing.assert_allclose(seen, quadratic(X[:, None], X[None, :]), rtol=1e-12)
    assert module.prediction({**facts, "curvatures": [None, None]}, X) is None
    assert module.prediction({**facts, "curvatures": None}, X) is None


def test_marks_stand_at_the_checkpoints_own_losses(drawn):
    loss = drawn("between")["p"].axes[0]
    points = [line for line in loss.lines if len(line.get_xdata()) == 1]
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == [(0.0, 0.1), (1.0, 0.1)]
    assert {text.get_text() for text in loss.texts} == {"sgd", "sam"}
    plane = drawn("plane between three")["p"].axes[0]
    assert {text.get_text() for text in plane.texts} == {"1", "2", "3"}
    assert print_of(plane.figure).replace("\xa0", " ").startswith("1: sgd; 2: sam; 3: s-sgd")
    assert plane.get_ylabel().replace("\n", " ") == "β, across, in units of that way"


def test_a_label_is_nearest_to_its_own_mark():
    """Also where another mark lies just where the first choice of a side would be."""
    x, y = np.array([0.0, 0.09, 0.05]), np.array([0.0, 0.07, -0.08])
    marks = [Mark(str(i), a, b, 0.1) for i, (a, b) in enumerate(zip(x, y, strict=True))]
    figure = plots.loss_contours({"": Plane(X, X, BOWL, marks)})
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    places = axes.transData.transform(np.stack([x, y], 1))
    for number, text in enumerate(axes.texts):
        box = text.get_window_extent()
        apart = np.maximum(0, np.maximum([box.x0, box.y0] - places, places - [box.x1, box.y1]))
        assert np.hypot(*apart.T).argmin() == number


def test_a_trajectory_is_drawn_from_start_to_end_with_its_variance(drawn):
    record, _ = CASES["plane of a trajectory"]
    path = record["grids"][0]["path"]
    axes = drawn("plane of a trajectory")["p"].axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata().T, [path["alpha"], path["beta"]])
    assert [text.get_text() for text in axes.texts] == ["start", "end"]
    assert axes.get_xlabel().split(",")[0] == "PC 1 (83%)"
    assert axes.get_ylabel().split(",")[0] == "PC 2 (10%)"
    assert axes.get_xlabel().replace("\n", " ").endswith("distance (L2 norm over all weights)")
    several = drawn("plane of trajectories")["p"]
    assert several.axes[2].get_xlabel().split(",")[0] == "PC 1"
    assert "axes explain 93% of the paths" in print_of(several)
    assert "checkpoints lie up to 0.01 (L2) outside of the plane" in print_of(several)
    line = drawn("line of a trajectory")["p"].axes[0].lines[1]
    assert line.get_xydata().tolist()[-1] == [0.0, CENTRE]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_colour_bars_are_about_as_high_as_the_panels(share):
    """A flat plane keeps its shape, down to where it would be a strip."""
    plane = Plane(X, share * X, BOWL)
    figure = plots.loss_contours({"a": plane}, accuracies={"a": plane}, columns=2)
    FigureCanvasAgg(figure).draw()
    panel, _, bar, _ = (axes.get_window_extent() for axes in figure.axes)
    assert panel.height / panel.width == pytest.approx(share, rel=0.02) or share < 1 / 3
    # of the places that the layout gives to both, a bar takes 90%, title and labels the rest
    assert 0.8 < bar.height / panel.height < 1.8  # 2.4 in a figure as high as for a square


def contours(figure):
    return [c for axes in figure.axes for c in axes.collections if isinstance(c, QuadContourSet)]


def test_train_and_test_share_one_scale_and_accuracy_has_its_own(drawn):
    _, arrays = CASES["planes of four long names"]
    filled = [c for c in contours(drawn("planes of four long names")["p"]) if c.filled]
    assert len(filled) == 16
    for group, names, unit in ((filled[:8], ("loss", "test_loss"), 1),
                               (filled[8:], ("accuracy", "test_accuracy"), 100)):  # fmt: skip
        levels = {tuple(c.levels) for c in group}
        assert len(levels) == 1
        (levels,) = levels
        values = unit * np.stack([arrays[name] for name in names])
        if unit == 1:  # losses: logarithms of the rise above the lowest of all
            values = loss_scale([values]).of_rises().placed(values)
        assert levels[0] <= values.min() + 1e-9
        assert levels[-1] >= values.max() - 1e-9
    titles = [axes.get_title() for axes in drawn("planes of four long names")["p"].axes[:16]]
    assert [title.rpartition(", ")[2] for title in titles] == (["train"] * 4 + ["test"] * 4) * 2
    assert len(set(titles)) == 8


def test_a_scale_is_logarithmic_where_the_range_asks_for_it():
    assert loss_scale([np.array([1.0, 30.0])]).log
    assert not loss_scale([np.array([1.0, 10.0])]).log
    assert not loss_scale([np.array([-1.0, 30.0])]).log
    ratios = np.diff(np.log(loss_scale([np.array([0.01, 30.0])]).levels()))
    np.testing.assert_allclose(ratios, ratios[0])


@pytest.mark.parametrize("height", [50.0, 1e8])
def test_far_values_are_clipped_and_the_checkpoint_never(height):
    values = np.array([0.5, 0.1, 0.5, 1.0, height])
    scale = loss_scale([values])
    # the lower quartile is 0.5; off the scale is what is above 100 times that
    assert scale.high == (50.0 if height == 50 else 100 * 0.5)
    assert (scale.most > scale.high) == (height > 50)
    assert loss_scale([values], [1e5]).high == 1e5
    assert loss_scale([values], [None, np.nan, 0.01]).low == 0.01


def test_a_scale_of_nothing_or_of_one_value():
    assert loss_scale([np.full(3, np.nan)]).holes == 3
    for value in (0.0, 2.5, -1.0):
        levels = loss_scale([np.full(3, value)]).levels()
        assert levels[0] < value < levels[-1]


def test_contours_are_between_logarithms_of_the_rise():
    """Of (101 ** x - 1) / 100 for x from 0 to 1 they are evenly spaced however few points."""
    few = np.linspace(0, 1, 4)
    values = 2 + (101**few - 1)[:, None] / 100 * np.ones(3)
    figure = plots.loss_contours({"": Plane(few, few[:3], values)})
    scale = loss_scale([values]).of_rises()
    assert (scale.low, scale.high) == (2.0, 3.0)
    (drawn,) = [c for c in contours(figure) if not c.filled]
    assert [dashes for _, dashes in drawn.get_linestyle()] == [None] * 14  # solid below 1 too
    seen = [path.vertices[:, 0] for path in drawn.get_paths()]
    for places, place in zip(seen, np.linspace(0, 1, 16)[1:-1], strict=True):
        np.testing.assert_allclose(places, place, atol=1e-9)
    np.testing.assert_allclose(scale.levels()[[0, -1]], [2, 3])


def test_minima_of_unequal_height_have_unequal_colours():
    levels = loss_scale([BOWL, BOWL + 0.3]).of_rises().levels()
    low, high = np.digitize([0.1, 0.4], levels)
    assert high - low >= 4  # of 15, although 0.3 is a tenth of the range


def test_scales_end_where_values_do_and_have_one_minus():
    sure = Plane(X, X, 100 - 9 * BOWL)
    figure = plots.loss_contours({"": Plane(X, X, BOWL - 2)}, accuracies={"": sure})
    losses, accuracies = figure.axes[2:]
    assert accuracies.get_ylim()[1] == 100
    texts = [text.get_text() for text in losses.get_yticklabels()]
    assert {text[0] for text in texts} >= {"−"}
    assert "-" not in "".join(texts)
    whole = Plane(X, X, np.full_like(BOWL, 100))
    FigureCanvasAgg(plots.loss_contours({"": sure}, accuracies={"": whole})).draw()


def hatches(axes):
    sets = [c for c in axes.collections if isinstance(c, QuadContourSet) and any(c.hatches)]
    return [(c.levels[0], list(c.hatches)) for c in sets]


def test_planes_hatch_what_is_clipped_and_cross_hatch_holes():
    rim, hole = BOWL.copy(), BOWL.copy()
    rim[-1], hole[:2, :3] = 1e8, np.nan
    figure = plots.loss_contours({"rim": Plane(X, X, rim), "hole": Plane(X, X, hole)})
    first, second = figure.axes[:2]
    scale = loss_scale([rim, hole]).of_rises()
    assert hatches(first) == [(scale.placed(scale.high), ["////"])]
    assert hatches(second) == []
    below = [patch for patch in second.patches if isinstance(patch, Rectangle)]
    assert [patch.get_hatch() for patch in below] == ["xxxxx"]
    assert len(first.patches) == 0
    text = print_of(figure)
    assert f"hatched: loss above {scale.high:.3g} (largest 1e+08)" in text
    assert "6 point(s) with a loss that is not finite" in text
    fills = [c for c in contours(figure) if c.filled and not any(c.hatches)]
    covered = [sum(len(path.vertices) > 0 for path in c.get_paths()) for c in fills]
    assert min(covered) > 3


def test_nothing_is_said_where_nothing_is_left_out():
    figure = plots.loss_contours({"bowl": Plane(X, X, BOWL)})
    assert figure.texts == []
    assert hatches(figure.axes[0]) == []


def test_a_clipped_point_by_itself_is_hatched_over_some_area():
    peak = BOWL.copy()
    peak[3, 3] = 1e9
    figure = plots.loss_contours({"peak": Plane(X, X, peak)})
    (hatched,) = [c for c in contours(figure) if any(c.hatches)]
    place = np.array([X[3], X[3]])
    assert any(path.contains_point(place) for path in hatched.get_paths())
    assert not any(path.contains_point(place + 0.11) for path in hatched.get_paths())


@pytest.mark.parametrize(
    ("shares", "words"),
    [([1.0], "sees 100% of"), ([0.996, 0.0123], "see 99.6%, 1.2% of"), ([0.5] * 9, "see 50% of"),
     ([0.1, 0.2, 0.3, 0.4, 0.05], "see 5% to 40% of")],
)  # fmt: skip
def test_shares_are_said_in_few_words(shares, words):
    record, arrays = landscape(dims=2, names=tuple("abcdefghi")[: len(shares)])
    for grid, share in zip(record["grids"], shares, strict=True):
        grid["share"] = share
    assert f"{words} λ_max" in " ".join(landscape_notes(record, arrays))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1e-9, "<0.001%"), (0.00037, "0.037%"), (0.0994, "9.9%"), (0.0995, "10%"),
     (0.5049, "50%"), (0.9899, "99%"), (0.996, "99.6%"), (0.9999, "99.99%"), (1 - 1e-9, "100%"),
     (1, "100%"), (-0.25, "−25%")],
)  # fmt: skip
def test_percentages(share, text):
    assert percent(share) == text


def test_the_small_print_says_what_the_record_knows():
    record, arrays = landscape(dims=1, split="both")
    record |= {"n_test_samples": 360, "batchnorm": False, "loss": "mse"}
    text = landscape_notes(record, arrays)[1]
    assert text.startswith("mse of the train and test split, 1,437 train, 360 test examples;")
    assert "BatchNorm" not in text
    assert "λ_max" not in " ".join(landscape_notes(record, arrays))  # told of planes only


def test_lines_hatch_what_is_clipped_and_cross_hatch_holes():
    values = 0.1 + X[None] ** 2
    values[0, -2:], values[0, 4] = 1e8, np.inf
    figure = plots.loss_bands({"": {"a": Line(X, values)}}, xlabel="α")
    (axes,) = figure.axes
    above, hole = axes.collections
    assert above.get_hatch() == "//////"
    assert above.get_paths()[0].vertices[:, 0].min() == X[-3]
    assert hole.get_hatch() == "xxxx"
    assert set(hole.get_paths()[0].vertices[:, 0]) == set(X[3:6])
    assert np.isnan(axes.lines[0].get_ydata()[4])
    assert axes.get_ylim()[1] < 1e3
    assert "largest 1e+08" in print_of(figure)
    assert "1 point(s)" in print_of(figure)


def test_hatching_is_said_only_where_there_is_some():
    """One of the directions is clipped; the mean, which is hatched, is not."""
    values = np.stack([0.1 + X**2] * 30)
    values[0, 5] = 200
    figure = plots.loss_bands({"": {"a": Line(X, values)}}, xlabel="α")
    assert loss_scale([values]).most > loss_scale([values]).high
    assert "hatched" not in print_of(figure)
    assert not [c for c in figure.axes[0].collections if c.get_hatch()]


def test_the_small_print_warns_of_unequal_losses():
    record, arrays = landscape(dims=2, names=("runs/sgd", "runs/sam"))
    assert "losses are unequal (sgd 0.2, sam 0.4)" in " ".join(landscape_notes(record, arrays))
    record["grids"][1]["marks"][0]["loss"] = 0.21
    assert "unequal" not in " ".join(landscape_notes(record, arrays))


def test_width_title_and_small_print_are_chosen(tmp_path):
    record, arrays = landscape(dims=2, points=5, names=("sgd", "sam"))
    style = PictureSettings(width=5.0, title="Two minima", small_print=False)
    with pytest.MonkeyPatch.context() as patch:
        figures = []
        patch.setattr(module, "save_figure", lambda figure, *_, **__: figures.append(figure) or [])
        landscape_pictures(record, arrays, tmp_path / "p", style=style, surface=True)
    assert [figure.get_figwidth() for figure in figures] == [5.0, 5.0]
    assert [figure.get_suptitle() for figure in figures] == ["Two minima"] * 2
    assert [len(figure.texts) for figure in figures] == [1, 1]  # the title
    assert [axes.name for axes in figures[1].axes] == ["3d", "3d"]


@pytest.mark.parametrize("values", [np.full((11, 11), np.nan), np.full((11, 11), 3.0)])
def test_planes_of_holes_only_or_of_one_value(values):
    planes = {"odd": Plane(X, X, values), "bowl": Plane(X, X, BOWL)}
    FigureCanvasAgg(plots.loss_contours(planes)).draw()
    FigureCanvasAgg(plots.loss_contours({"odd": planes["odd"]})).draw()
    FigureCanvasAgg(plots.loss_bands({"": {"odd": Line(X, values)}}, xlabel="α")).draw()


def test_names_of_ends_are_not_on_the_lines_of_train_and_test(drawn):
    loss = drawn("between")["p"].axes[0]
    assert len(loss.texts) == 2
    for line in lines(loss, "-")[:1] + lines(loss, "--"):
        data = line.get_xydata()
        x = np.linspace(data[0, 0], data[-1, 0], 2000)
        # straight on the screen: between logarithms
        y = np.exp(np.interp(x, data[:, 0], np.log(data[:, 1])))
        assert loss.get_yscale() == "log"
        places = loss.transData.transform(np.stack([x, y], 1))
        for text in loss.texts:
            box = text.get_window_extent()
            inside = (places > [box.x0, box.y0]) & (places < [box.x1, box.y1])
            assert not inside.all(axis=1).any()


def test_labels_at_one_place_do_not_meet():
    marks = [Mark(name, 0.0, 0.02 * i, 0.1) for i, name in enumerate(("sgd", "s-sgd", "sam"))]
    figure = plots.loss_contours({"": Plane(X, X, BOWL, marks)})
    FigureCanvasAgg(figure).draw()
    found = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(found) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])


def test_files_carry_the_settings_and_repeat_to_the_byte(tmp_path):
    record, arrays = landscape("eigen", dims=2, points=5)
    record["grids"][0]["lambda_max"]["value"] = float("nan")
    first = landscape_pictures(record, arrays, tmp_path / "a")
    names = ["a.png", "a.pdf", "a-axes.png", "a-axes.pdf"]
    assert [path.name for path in first] == names
    again = json.loads(json.dumps(record).replace("NaN", "null"))  # as it is read from its file
    again |= {"out": "elsewhere", "pictures": ["x"]}
    second = landscape_pictures(again, arrays, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(first[0]) as image:
        chunks = image.text
    assert chunks["Title"] == "Loss landscape: sgd"
    assert chunks["Description"] == record["command"]
    assert json.loads(chunks["Settings"])["settings"] == record["settings"]
    document = first[1].read_bytes()
    assert b"/Title (Loss landscape: sgd)" in document
    assert f"/Subject ({record['command']})".encode() in document
    assert b'"directions": "eigen"' in document
    assert b"CreationDate" not in document
