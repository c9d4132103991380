"""`sharpness` of several checkpoints: differences with their own errors, and curves."""

import json

import numpy as np
import pytest
from ssgd_analysis.cli.main import main

from ssgd_analysis.sharpness.differences import metric_differences
from ssgd_analysis.sharpness.tables import difference_tables

SMALL = ["--samples", 60, "--batch-size", 30, "--top", 1, "--probes", 4]
METRICS = ["--metric", "expected", "--metric", "sam", "--metric", "lambda_max"]


NET = """
from torch import nn

def make(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    net = tmp_path_factory.mktemp("net") / "net.py"
    net.write_text(NET, encoding="utf-8")
    places = [tmp_path_factory.mktemp("runs") / name for name in ("a", "b")]
    for place, lr in zip(places, ("0.1", "0.3"), strict=True):
        train = ["train", "--method", "sgd", "--data", "digits", "--lr", lr]
        with pytest.raises(SystemExit) as stop:
            main([*train, "--model", f"{net}:make", "--epochs", "1", "--out", str(place)])
        assert stop.value.code == 0
    return places


def test_differences_are_those_of_the_samples(runs, run, tmp_path):
    found = run("sharpness", *runs, *METRICS, *SMALL, "--json").json
    one, other = (checkpoint["metrics"] for checkpoint in found["checkpoints"])
    (entry,) = found["differences"]
    assert [entry["from"], entry["checkpoint"]] == [str(place) for place in runs]
    for name in one:
        value = entry["metrics"][name]["difference"]
        assert value == pytest.approx(other[name]["value"] - one[name]["value"], abs=1e-12)
    gaps = np.subtract(other["expected"]["samples"], one["expected"]["samples"])
    error = gaps.std(ddof=1) / len(gaps) ** 0.5  # independent draws, each of both checkpoints
    assert entry["metrics"]["expected"]["stderr"] == pytest.approx(error)
    assert entry["metrics"]["expected"]["paired"]
    whole = np.hypot(one["lambda_max"]["stderr"], other["lambda_max"]["stderr"])
    if not entry["metrics"]["lambda_max"]["paired"]:
        assert entry["metrics"]["lambda_max"]["stderr"] == pytest.approx(whole)


def test_a_checkpoint_is_no_different_from_itself(runs, run):
    found = run("sharpness", runs[0], runs[0], *METRICS, *SMALL, "--json").json
    for name, entry in found["differences"][0]["metrics"].items():
        # λ_max is searched twice, from another start: equal to the search's tolerance
        scale = found["checkpoints"][0]["metrics"][name]["value"]
        assert abs(entry["difference"]) <= 1e-3 * abs(scale), name
        if entry["paired"] and name != "lambda_max":
            assert entry["stderr"] == 0, name


def test_resumed_records_give_the_same_differences(runs, run, tmp_path):
    out = ["--out", tmp_path / "out"]
    first = run("sharpness", *runs, *METRICS, *SMALL, *out, "--json").json
    (tmp_path / "out" / "checkpoints" / "001.json").unlink()
    again = run("sharpness", *runs, *METRICS, *SMALL, *out, "--resume", "--json")
    assert f"taken from {tmp_path}/out/checkpoints/000.json" in again.err
    for name, entry in again.json["differences"][0]["metrics"].items():
        if name != "lambda_max":  # its search started elsewhere
            assert entry == first["differences"][0]["metrics"][name]
    kept = json.loads((tmp_path / "out" / "sharpness.json").read_text())
    assert kept["differences"] == again.json["differences"]


def test_printed_only_where_there_are_several(runs, run):
    both = run("sharpness", *runs, *METRICS[:2], *SMALL).out
    assert "error of" in both
    assert "pairs" in both
    alone = run("sharpness", runs[0], *METRICS[:2], *SMALL)
    assert "error of" not in alone.out
    assert "differences" not in run("sharpness", runs[0], *SMALL, "--json").json
    assert "differences" not in run("sharpness", *runs, *SMALL, "--plan", "--json").json


def test_curves_in_record_table_and_picture(runs, run, tmp_path):
    out = tmp_path / "out"
    told = run("sharpness", *runs, *METRICS, *SMALL, "--curves", "--out", out)
    assert told.status == 0, told.err
    assert "sigma" in told.out
    for kind in ("png", "pdf"):
        assert str(out / f"curves.{kind}") in told.out
        assert (out / f"curves.{kind}").stat().st_size > 2000
    metrics = json.loads((out / "sharpness.json").read_text())["checkpoints"][0]["metrics"]
    assert "curve" not in metrics["lambda_max"]
    curve = metrics["expected"]["curve"]
    assert curve["over"] == "sigma"
    assert len(curve["radii"]) == len(curve["values"]) == len(curve["stderr"])
    at = curve["radii"].index(0.1)  # the default: a metric at one radius is a point of its curve
    assert curve["values"][at] == pytest.approx(metrics["expected"]["value"], rel=1e-6)
    assert not (tmp_path / "plain" / "curves.png").exists()


def test_curves_of_nothing_are_refused(runs, run):
    for metrics in ([], ["--metric", "trace"]):
        refused = run("sharpness", runs[0], *metrics, *SMALL, "--curves")
        assert refused.status == 2
        assert "--curves needs a --metric that has a radius" in refused.error
        assert "adaptive_worst" in refused.error


def record(value, stderr, samples=None, weights=None):
    return {"value": value, "stderr": stderr, "samples": samples, "weights": weights}


def checkpoint(name, metrics, loss=0.5, split="train"):
    return {"checkpoint": name, "split": split, "loss": loss, "metrics": metrics}


def between(one, other):
    records = [checkpoint(n, {"m": m}) for n, m in (("a", one), ("b", other))]
    (entry,) = metric_differences(records)
    return entry["metrics"]["m"]


def test_losses_stand_beside_the_differences_with_the_caveat_of_compare():
    metrics = {"m": record(1.0, 0.1)}
    records = [checkpoint("a", metrics, 0.3), checkpoint("b", metrics, 0.2)]
    near, far = metric_differences([*records[:1], checkpoint("c", metrics, 0.29), records[1]])
    assert (near["losses"], near["caveat"]) == ([0.29, 0.3], "")
    assert far["loss_gap"] == pytest.approx(1 / 3)
    assert far["caveat"].startswith(
        "train losses 0.2 and 0.3 differ by 33%, and at most 10% is allowed: "
    )
    table, caveat, _ = difference_tables([far])
    assert table.title == "b minus a; loss 0.2 and 0.3 (33.3% apart)"
    assert caveat == f"b and a are not comparable: {far['caveat']}"
    without = [{**one, "metrics": {}} for one in records]
    assert next(iter(difference_tables(metric_differences(without)))).startswith("b and a are not")


def test_the_header_names_the_loss_and_says_which_was_assumed(runs, run):
    own = run("sharpness", runs[0], *SMALL).out
    assert "(cross_entropy), accuracy" in own.splitlines()[0]
    assert "assumed" not in own
    net = json.loads((runs[0] / "config.json").read_text())["model"]
    foreign = ["sharpness", runs[0] / "final.safetensors", "--model", net, "--data", "digits"]
    found = run(*foreign, *SMALL, "--json").json["checkpoints"][0]
    assert found["loss_name"] == "cross_entropy"
    assert "no --loss was given, so cross_entropy is assumed" in found["notes"]
    named = run(*foreign, "--loss", "mse", *SMALL, "--json").json["checkpoints"][0]
    assert named["loss_name"] == "mse"
    assert not any("assumed" in note for note in named["notes"])


def test_differences_by_hand():
    found = between(record(2.0, 1.0, [1.0, 3.0]), record(5.0, 1.0, [4.0, 6.0]))
    assert found == {"difference": 3.0, "stderr": 0.0, "paired": True}
    # shares 1/4 and 3/4: differences 1 and 5, mean 4, √((¼·9 + ¾·1) / 1) = √3
    weights = [0.25, 0.75]
    found = between(
        record(0.0, 1.0, [0.0, 0.0], weights), record(4.0, 1.0, (1.0, 5.0), (0.25, 0.75))
    )
    assert found == {"difference": 4.0, "stderr": pytest.approx(3**0.5), "paired": True}
    found = between(record(0.0, 3.0, [0.0, 0.0]), record(4.0, 4.0, [1.0, 2.0, 3.0]))
    assert found == {"difference": 4.0, "stderr": 5.0, "paired": False}
    found = between(record(0.0, 3.0, [0.0, 0.0], weights), record(4.0, 4.0, [1.0, 2.0], [0.5, 0.5]))
    assert not found["paired"]
    assert between(record(0.0, None), record(4.0, 4.0))["stderr"] is None
    assert between(record(None, None), record(4.0, 4.0))["difference"] is None


def test_samples_that_were_not_finite_are_no_pairs():
    found = between(record(1.0, 3.0, [None, 1.0]), record(4.0, 4.0, [1.0, 2.0]))
    assert found == {"difference": 3.0, "stderr": 5.0, "paired": False}


def test_only_metrics_of_both():
    records = [
        checkpoint("a", {}),
        checkpoint("b", {"m": record(1.0, 1.0)}),
    ]
    assert metric_differences(records)[0]["metrics"] == {}
    assert metric_differences(records[:1]) == []
