"""The interactive page in a real browser: what one sees and what the buttons do."""

import io
import itertools
import shutil

import numpy as np
import pytest
from landscape_records import lines, planes, quadratic
from PIL import Image
from playwright.sync_api import sync_playwright
from scipy.interpolate import RegularGridInterpolator

from ssgd_analysis.plots import surface_html

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason=f"no browser of {', '.join(BROWSERS)} on the PATH"),
]
# WebGL by the processor: a test machine need not have a graphics card
FLAGS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
LONG = tuple(f"results/{'a-long-folder/' * 3}method-{m}-of-long-name" for m in "abcdefgh")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a landscape; at the end nothing may have gone wrong and nothing been fetched."""
    wrong, pages = [], []

    def opened(record, arrays, size=(1280, 720)):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: fetched(request.url))
        page.goto(surface_html(record, arrays, tmp_path / "l.html").as_uri())
        page.wait_for_selector("#main .main-svg")
        pages.append(page)
        return page

    def said(message):
        if message.type == "error":
            wrong.append(message.text)

    def fetched(url):
        if not url.startswith(("file:", "data:", "blob:")):
            wrong.append(url)

    yield opened
    for page in pages:
        page.close()
    assert wrong == []


def press(page, key, name):
    page.locator(f"button[data-key={key}]", has_text=name).click()


def values(page, place, key="z", trace=0):
    """What a trace of a plot holds, as an array; holes are NaN."""
    found = page.evaluate(f"Array.from(document.getElementById('{place}').data[{trace}].{key})")
    return np.array(found, dtype=float)


def colours(page, place):
    """Different colours in the picture of a plot: a message in place of a surface has few."""
    picture = Image.open(io.BytesIO(page.locator(f"#{place}").screenshot())).convert("RGB")
    return len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0))


def close(found, array):
    # the file holds nine digits, logarithms may be near 0; plotly has alpha along columns
    return found == pytest.approx(array.T, rel=1e-8, abs=1e-8, nan_ok=True)


def test_the_surface_is_there_and_a_button_changes_it(show):
    record, arrays = planes()
    page = show(record, arrays)
    assert page.locator("#main canvas").count() > 0
    page.wait_for_function("document.querySelector('#main .gl-container canvas') !== null")
    page.wait_for_timeout(500)  # a frame of WebGL
    assert colours(page, "main") > 200
    press(page, "log", "linear")
    for place in ("main", "side"):
        assert close(values(page, place), arrays["loss"][0])
        assert np.array_equal(values(page, place, "x"), arrays["alpha"])
        assert np.array_equal(values(page, place, "y"), arrays["beta"])
    before = colours(page, "main"), page.locator("#main").screenshot()
    assert "this plane sees 3% of λ_max (400)" in page.locator("#facts").inner_text()
    press(page, "checkpoint", "b")
    for place in ("main", "side"):
        assert close(values(page, place), arrays["loss"][1])
    assert "this plane sees 3% of λ_max (800)" in page.locator("#facts").inner_text()
    page.wait_for_timeout(500)
    assert page.locator("#main").screenshot() != before[1]
    pressed = page.locator("button[data-key=checkpoint][aria-pressed=true]").all_inner_texts()
    assert pressed == ["b"]


def test_all_surfaces_side_by_side(show):
    record, arrays = planes()
    page = show(record, arrays)
    press(page, "log", "linear")
    press(page, "checkpoint", "all")
    for place, scene in enumerate(("scene", "scene2")):
        number = page.evaluate(
            f"main.data.findIndex((t) => t.type === 'surface' && t.scene === '{scene}')"
        )
        assert close(values(page, "main", "z", number), arrays["loss"][place])
    ends = page.evaluate("[main.layout.scene.domain.x[1], main.layout.scene2.domain.x[0]]")
    assert ends == pytest.approx([0.5, 0.5])
    assert not page.locator("#side").is_visible()
    press(page, "checkpoint", "b")
    assert close(values(page, "side"), arrays["loss"][1])


def test_one_colour_scale_over_all(show):
    record, arrays = planes(split="both")
    page = show(record, arrays)
    press(page, "log", "linear")
    both = np.concatenate([arrays["loss"], arrays["test_loss"]])
    for checkpoint, layer in itertools.product("ab", ("train", "test")):
        press(page, "checkpoint", checkpoint)
        press(page, "layer", layer)
        name = "loss" if layer == "train" else "test_loss"
        assert close(values(page, "main"), arrays[name]["ab".index(checkpoint)])
        ends = page.evaluate(
            "[main.data[0].cmin, main.data[0].cmax, side.data[0].zmin, side.data[0].zmax]"
        )
        assert ends == pytest.approx([both.min(), both.max()] * 2)


def test_logarithm(show):
    record, arrays = planes()
    page = show(record, arrays)
    press(page, "log", "log")
    for place in ("main", "side"):
        assert close(values(page, place), np.log10(arrays["loss"][0]))
    texts = page.evaluate("side.data[0].colorbar.ticktext")
    places = page.evaluate("side.data[0].colorbar.tickvals")
    assert len(texts) >= 3
    # ticks say the loss itself, to the three digits that are shown
    assert [float(text) for text in texts] == pytest.approx(10 ** np.array(places), rel=5e-3)


def test_losses_that_are_not_positive_are_left_out_of_the_logarithm(show):
    record, arrays = planes()
    arrays["loss"][0] -= 1
    page = show(record, arrays)
    press(page, "log", "log")
    positive = arrays["loss"][0] > 0
    assert np.array_equal(np.isfinite(values(page, "main")), positive.T)
    count = int((~positive).sum())
    assert f"{count} points without a logarithm" in page.locator("#facts").inner_text()


def test_draws_can_be_switched(show):
    record, arrays = planes(repeats=2)
    page = show(record, arrays)
    press(page, "log", "linear")
    press(page, "checkpoint", "b")
    press(page, "repeat", "1")
    assert close(values(page, "main"), arrays["loss"][1, 1])


def test_holes_are_left_out(show):
    record, arrays = planes(names=("runs/a",))
    arrays["loss"][:3, :2] = np.nan
    record["grids"][0]["holes"] = 6
    page = show(record, arrays)
    for place in ("main", "side"):
        found = values(page, place)
        assert np.array_equal(np.isnan(found), np.isnan(arrays["loss"]).T)
    assert f"6 of {arrays['loss'].size} points are holes" in page.locator("#facts").inner_text()
    assert page.locator("button[data-key=checkpoint]").count() == 0  # nothing to choose


def test_hover_tells_place_loss_and_accuracy(show):
    page = show(*planes(path=True))
    place = page.locator("#side .nsewdrag").bounding_box()
    page.mouse.move(place["x"] + 0.75 * place["width"], place["y"] + 0.5 * place["height"])
    page.wait_for_selector("#side .hoverlayer text")
    text = page.locator("#side .hoverlayer").text_content()
    for part in ("α 0.5, β 0.25", "train loss", "train accuracy"):
        assert part in text


def test_path_and_marks_are_in_both(show):
    record, arrays = planes(path=True)
    page = show(record, arrays)
    path = record["grids"][0]["path"]
    for place in ("main", "side"):
        assert values(page, place, "x", 1).tolist() == path["alpha"]
        assert values(page, place, "y", 1).tolist() == path["beta"]
        names = page.evaluate(f"{place}.data.slice(1).map((trace) => trace.name)")
        assert names == ["path", "start", "end"]
    press(page, "log", "linear")
    assert values(page, "main", "z", 1).tolist() == path["loss"]  # their own


def test_on_the_test_loss_the_path_lies_on_the_surface(show):
    record, arrays = planes(names=("runs/a",), split="both", path=True)
    page = show(record, arrays)
    press(page, "log", "linear")
    press(page, "layer", "test")
    path = record["grids"][0]["path"]
    surface = RegularGridInterpolator((arrays["alpha"], arrays["beta"]), arrays["test_loss"])
    expected = surface(np.stack([path["alpha"], path["beta"]], axis=-1))
    assert values(page, "main", "z", 1) == pytest.approx(expected, rel=1e-7)


def test_lines(show):
    record, arrays = lines(repeats=2, split="both")
    page = show(record, arrays)
    assert page.evaluate("main.data.filter((trace) => trace.mode === 'lines').length") == 12
    press(page, "checkpoint", "b")
    press(page, "layer", "train")
    for draw in range(2):
        assert values(page, "main", "y", draw) == pytest.approx(arrays["loss"][1, draw], rel=1e-8)
    assert values(page, "main", "y", 2) == pytest.approx(arrays["loss"][1].mean(0), rel=1e-8)
    accuracy = values(page, "side", "y", 0)
    assert accuracy == pytest.approx(arrays["accuracy"][1, 0], rel=1e-8)
    press(page, "log", "log")
    assert page.evaluate("main.layout.yaxis.type") == "log"
    press(page, "repeat", "1")
    assert values(page, "main", "y", 0) == pytest.approx(arrays["loss"][1, 1], rel=1e-8)
    # the parabola that slope and curvature predict, of the second checkpoint's second draw
    even = np.linspace(arrays["alpha"][0], arrays["alpha"][-1], 201)
    assert values(page, "main", "y", 1) == pytest.approx(2.3 * quadratic(even))
    press(page, "log", "linear")
    assert page.evaluate("main.layout.yaxis.type") == "linear"


@pytest.mark.parametrize("make", [lines, planes])
@pytest.mark.parametrize("size", [(1280, 720), (400, 800)])
def test_everything_fits(show, make, size):
    page = show(*make(names=LONG), size=size)
    width, height = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert width <= size[0]
    assert height <= size[1] or size[0] < 1000  # a narrow page is scrolled
    boxes = [button.bounding_box() for button in page.locator("#controls button").all()]
    boxes += [page.locator(f"#{place}").bounding_box() for place in ("main", "side", "settings")]
    for box in boxes:
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
    for a, b in itertools.combinations(boxes, 2):
        beside = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
        assert beside or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
    names = page.locator("button[data-key=checkpoint]").all_inner_texts()
    assert len(set(names)) == len(names) >= len(LONG)


def test_hostile_names(show):
    names = ("</script><b>x", "@PLOTLY@ & \u2028 '\"`${1}")
    page = show(*planes(names=names))
    assert page.locator("button[data-key=checkpoint]").count() == 3
    titles = page.evaluate(
        "[...document.querySelectorAll('#controls button')].map((one) => one.title)"
    )
    assert titles[:3] == ["", *names]


def test_settings_and_command_are_told(show):
    record, arrays = planes()
    page = show(record, arrays)
    assert page.locator("#command").inner_text() == record["command"]
    for part in ("normalize filter", "seed 0", "n_samples 1437", "ssgd-analysis 0.1.0"):
        assert part in page.locator("#settings").inner_text()
