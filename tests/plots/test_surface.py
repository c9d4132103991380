"""What the interactive page holds, without a browser; see ``test_surface_browser.py``."""

import json
import re

import numpy as np
import pytest
from landscape_examples import lines, planes

from ssgd_analysis.plots import surface_html


def content(record, arrays, folder):
    page = surface_html(record, arrays, folder / "l.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize("make", [lines, planes])
def test_the_file_needs_no_network_and_repeats(tmp_path, make):
    first = surface_html(*make(), tmp_path / "l.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", first)
    assert first == surface_html(*make(), tmp_path / "l.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["l.html"]


def test_the_page_opens_on_the_scale_that_the_losses_ask_for(tmp_path):
    record, arrays = planes()
    arrays["loss"] = np.linspace(1, 20, arrays["loss"].size).reshape(arrays["loss"].shape)
    assert content(record, arrays, tmp_path)["log"] is False
    arrays["loss"] *= np.linspace(1, 2, arrays["loss"].size).reshape(arrays["loss"].shape)
    assert content(record, arrays, tmp_path)["log"] is True
    arrays["loss"][0, 0, 0] = 0
    assert content(record, arrays, tmp_path)["log"] is False


def test_a_landscape_of_holes_and_a_flat_one(tmp_path):
    record, arrays = planes()
    for value in (np.nan, np.inf, 0.0, 2.0):
        arrays["loss"] = np.full_like(arrays["loss"], value)
        found = content(record, arrays, tmp_path)
        assert found["ranges"]["linear"][0] < found["ranges"]["linear"][1]
        assert (found["ranges"]["log"] is None) == (value != 2.0)
        expected = value if np.isfinite(value) else None
        assert found["grids"][0]["values"]["loss"][0][0] == expected


def test_interpolated_points_are_told(tmp_path):
    record, arrays = planes(names=("runs/a",))
    arrays["measured"] = arrays["loss"] > 1
    error = {"rms": 1e-4, "max": 3e-3, "points": 12}
    record["grids"][0] |= {"measured": int(arrays["measured"].sum()), "error": error}
    found = content(record, arrays, tmp_path)["grids"][0]
    assert found["values"]["measured"] == arrays["measured"].tolist()
    assert "rms 0.0001, at most 0.003" in found["facts"][-1]


def test_what_was_not_computed_is_left_out_or_explained(tmp_path):
    record, arrays = lines(names=("runs/a",))
    record["grids"][0] |= {"curvatures": [None], "slopes": [None]}
    assert content(record, arrays, tmp_path)["grids"][0]["facts"] == ["λ_max was not computed"]
    for name in ("share_note", "share", "curvatures", "slopes", "marks"):
        del record["grids"][0][name]
    assert content(record, arrays, tmp_path)["grids"][0]["facts"] == []
