"""The page: folds, a table of contents, and what a screen of each width shows."""

import re
import shutil

import pytest
from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

from ssgd_analysis.plots import save_figure
from ssgd_analysis.report import Section, write_page

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)
REASON = "undecided: neither a difference nor its absence within ±10% is shown; " * 2
HEADER = ["group", "against", "metric", "difference", "bootstrap", "verdict", "why"]
ROWS = [
    ["S-SGD noise_scale=0.6547 lr=0.2766", "SGD", "λ_max", "-0.1", "[-0.1, 0.1]", "flatter", "yes"],
    ["SAM", "SGD", "adaptive worst", "-0.1", "[-0.1, 0.1]", "not comparable", REASON],
]


@pytest.fixture
def page(tmp_path):
    figure = Figure(figsize=(6.9, 2))
    picture = save_figure(figure, tmp_path / "p")[0]
    table = {"wide": ("difference",), "more": ("bootstrap",)}
    sections = [
        Section("Overall", "The <rule>."),
        Section("Tests", "", HEADER, ROWS, **table),
        Section("Picture", pictures=[picture], narrow=[picture.read_bytes()]),
    ]
    return write_page(tmp_path / "report.html", "Runs", "One line.\nTwo lines.", sections)


def test_a_fold_for_each_section_and_links_to_them(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<a href="#(s\d)">(\w+)</a>', text) == [
        ("s0", "Overall"), ("s1", "Tests"), ("s2", "Picture"),
    ]  # fmt: skip
    assert text.count("<details>") == 2
    assert text.count("<details open>") == 1
    assert re.findall(r'<div id="(s\d)">', text) == ["s0", "s1", "s2"]  # inside their folds
    assert "The &lt;rule&gt;." in text
    assert text.count('<p class="verdict">') == 2


def test_pictures_have_a_size_at_which_letters_are_legible(page):
    (width,) = re.findall(r'<img [^>]*width="(\d+)"', page.read_text(encoding="utf-8"))
    assert int(width) == round(130 * 6.9)


@pytest.mark.slow
@pytest.mark.skipif(FOUND is None, reason="no browser on the PATH")
@pytest.mark.parametrize("width", [1300, 400])
def test_verdict_and_reason_are_in_sight_and_rows_of_one_height(page, width):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": width, "height": 900})
        shown.goto(page.as_uri())
        shown.click("nav a:nth-of-type(2)")
        assert shown.locator("details").nth(1).get_attribute("open") is not None
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("verdict", "why"):
            box = shown.locator("th", has_text=name).bounding_box()
            assert box["x"] + box["width"] <= width
        rows = shown.locator("tr:has(td)").all()
        assert len({round(row.bounding_box()["height"]) for row in rows}) == 1
        assert not shown.locator("th", has_text="bootstrap").is_visible()
        assert shown.locator("th", has_text="difference").is_visible() == (width > 640)
        shown.click("text=all columns")
        assert shown.locator("th", has_text="bootstrap").is_visible()
        browser.close()
