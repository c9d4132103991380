"""Pages of measured checkpoints and of a connection, from records alone."""

import json
from pathlib import Path

import pytest

from ssgd_analysis.connections.page import write_connection_page
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.sharpness.page import write_sharpness_page

DATA = Path(__file__).parents[2] / "figures" / "data"


def record(name):
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("count", [1, 3])
def test_sharpness_says_what_each_metric_means_and_costs(tmp_path, count):
    answer = record("sharpness")
    answer["checkpoints"] = answer["checkpoints"][:count]
    for one in answer["differences"]:
        one |= {"losses": [0.9, 0.7], "loss_gap": 0.25, "caveat": "their losses differ"}
    if count == 1:
        del answer["differences"]
    pictures = [DATA.parent / "density.png", DATA.parent / "curves.png"]
    text = write_sharpness_page(tmp_path / "s.html", answer, pictures).read_text(encoding="utf-8")
    assert text.count("<h2>Metrics") == text.count("<h2>Cost") == count
    for name in answer["checkpoints"][0]["metrics"]:
        assert METRICS[name.partition(":")[0]].summary in text
    assert ("the losses are unequal" in text) == (count == 3)
    assert text.count("<img") == 2
    assert "results/digits" not in text  # short names


def test_layers_and_checks_have_sections(tmp_path):
    answer = record("sharpness")
    answer = {"checkpoints": answer["checkpoints"][:1]}
    value = {"value": 1.0, "stderr": 0.1, "residual": 1e-5}
    answer["checkpoints"][0] |= {
        "layers": [{"name": "net.0", "n_parameters": 7, "lambda_max": value, "trace": value}],
        "cross_check": {"pyhessian": None, "note": "not installed"},
        "rescale_check": {"why": "nothing to rescale"},
    }
    text = write_sharpness_page(tmp_path / "s.html", answer, []).read_text(encoding="utf-8")
    for word in ("net.0", "not installed", "nothing to rescale"):
        assert word in text


def test_a_connection_says_how_high_its_barriers_are(tmp_path):
    document = record("connection")
    pictures = [DATA.parent / "connection.png"]
    page = write_connection_page(tmp_path / "c.html", document, pictures)
    text = page.read_text(encoding="utf-8")
    assert "line: barrier of the train loss 0.368 ± 0.0058" in text
    assert "the straight line" in text
    assert document["command"] in text
    assert "Connection of sgd and s-sgd" in text
