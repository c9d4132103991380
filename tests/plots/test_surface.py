"""What the interactive page holds, without a browser; see ``test_surface_browser.py``."""

import json
import re

import numpy as np
import pytest
from landscape_records import lines, planes

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
    for make, words in ((lines, []), (planes, ["share of λ_max: not computed"])):
        record, arrays = make(names=("runs/a",))
        unknown = [None] * (arrays["loss"].ndim)
        record["grids"][0] |= {"curvatures": unknown, "slopes": unknown, "share": None}
        record["grids"][0] |= {"lambda_max": None, "share_note": "not computed"}
        assert content(record, arrays, tmp_path)["grids"][0]["facts"] == words
        for name in ("share_note", "share", "curvatures", "slopes", "marks"):
            del record["grids"][0][name]
        assert content(record, arrays, tmp_path)["grids"][0]["facts"] == []


def test_a_share_is_rounded_as_in_the_other_pictures(tmp_path):
    record, arrays = planes(names=("runs/a",))
    record["grids"][0]["share"] = 0.00037
    (first, *_) = content(record, arrays, tmp_path)["grids"][0]["facts"]
    assert first == "this plane sees 0.037% of λ_max (400)"


def test_batchnorm_is_not_told_of_a_network_without(tmp_path):
    record, arrays = lines()
    assert "bn frozen" in content(record, arrays, tmp_path)["settings"]
    record["batchnorm"] = False
    assert "bn frozen" not in content(record, arrays, tmp_path)["settings"]


def test_a_path_has_a_start_though_no_checkpoint_is_marked_there(tmp_path):
    record, arrays = planes(names=("runs/a",), path=True)
    path = record["grids"][0]["path"]
    start, end = content(record, arrays, tmp_path)["grids"][0]["marks"]
    assert (start["name"], end["name"]) == ("start", "end")
    assert [start[key] for key in ("alpha", "beta", "loss")] == [
        path[key][0] for key in ("alpha", "beta", "loss")
    ]
