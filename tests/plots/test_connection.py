import copy
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from ssgd_analysis.pictures.connection import connection_pictures
from ssgd_analysis.plots.connection import Walk, connection_figure

T = np.linspace(0, 1, 5)


def walks(accuracy: bool = True, low: float = 1.0, high: float = 2.0) -> dict[str, Walk]:
    right = np.linspace(0.5, 0.9, 5) if accuracy else np.full(5, np.nan)
    loss = np.array([low, high, high, low, low])
    return {"line": Walk(T, loss, right, 0.25), "bezier": Walk(T, 0 * T + low, right)}


def test_two_splits_loss_and_accuracy():
    figure = connection_figure({"train": walks(), "test": walks()}, notes=["seed 0"], width=3.3)
    assert figure.get_figwidth() == 3.3
    assert [panel.get_title() for panel in figure.axes] == ["train", "test", "", ""]
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([T, [1, 2, 2, 1, 1]]))
    assert figure.axes[0].lines[1].get_xydata().tolist() == [[0.25, 2.0]]  # the barrier's mark
    assert len(figure.axes[0].lines) == 3  # no barrier on the other path, no mark
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), np.linspace(50, 90, 5))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["line", "bezier"]
    assert any("seed 0" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize(("high", "scale"), [(30.0, "log"), (2.0, "linear"), (np.inf, "linear")])
def test_a_wide_range_is_logarithmic(high, scale):
    figure = connection_figure({"train": walks(accuracy=False, high=high)})
    (panel,) = figure.axes  # no row of accuracies without any
    assert panel.get_yscale() == scale
    drawn = panel.lines[0].get_ydata()
    assert np.isnan(drawn[1]) == np.isinf(high)  # a gap


def test_on_a_users_own_axes():
    figure = Figure()
    own = figure.subplots(2, 1)
    assert connection_figure({"train": walks()}, axes=own) is figure
    assert all(len(panel.lines) for panel in own)


def test_paths_that_lie_on_each_other_are_both_seen():
    same = {name: Walk(T, 1 + T, 0.9 - T / 10) for name in ("line", "matched", "bezier", "chain")}
    figure = connection_figure({"train": same})
    drawn = [line.get_linestyle() for line in figure.axes[0].lines]
    assert len(set(drawn)) == 4
    assert [line.get_linestyle() for line in figure.legends[0].get_lines()] == drawn


def test_drawn_again_from_what_is_on_disk_the_files_are_the_same(tmp_path):
    """Whatever the command fills in after it has drawn, and however long it took."""
    top = {"value": 1.0, "at": 0.25}
    record = {
        "checkpoints": ["runs/a", "runs/b"],
        "settings": {"points": 5, "bn": "frozen", "epochs": 1, "lr": 0.1, "seed": 0},
        "n_samples": {"train": 10, "test": 5},
        "paths": [
            {"path": "line", "barrier": {"train": top, "test": {"value": np.nan, "at": np.nan}},
             "cost": {"gradients": 0, "seconds": 1.5}}
        ],
        "command": "ssgd-analyze connect runs/a runs/b",
        "out": "connection",
    }  # fmt: skip
    arrays = {"t": T} | {
        f"line_{split}_{what}": 0.5 + T / 2
        for split in ("train", "test")
        for what in ("loss", "accuracy")
    }
    first = connection_pictures(copy.deepcopy(record), arrays, tmp_path / "a")
    record |= {"out": "moved", "pictures": ["a.png"], "weights": ["w.safetensors"]}
    record["paths"][0]["cost"]["seconds"] = 7.25
    again = json.loads(json.dumps(record).replace("NaN", "null"))
    second = connection_pictures(again, arrays, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    again["settings"]["seed"] = 1
    third = connection_pictures(again, arrays, tmp_path / "c")
    assert first[0].read_bytes() != third[0].read_bytes()
