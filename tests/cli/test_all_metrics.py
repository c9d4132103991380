"""``--metric all`` beside a metric with settings: both are measured."""

import pytest

from ssgd_analysis.flatness import METRICS, all_metrics
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train

EXTRA = "expected:sigma=0.2,draws=2"
FEW = ("expected", "sam")


@pytest.fixture
def few(only_metrics):
    """A table of two metrics: all of them would take a minute."""
    only_metrics(set(FEW))


@pytest.fixture
def trained(tmp_path):
    for seed in range(2):
        for lr in (0.1, 0.05):
            config = TrainConfig(
                method="sgd", data="two_moons", model="mlp", epochs=1, batch_size=100, seed=seed,
                lr=lr,
            )  # fmt: skip
            train(config, tmp_path / "runs" / f"{lr}-{seed}")
    return tmp_path / "runs"


def test_all_stands_for_the_table_and_keeps_the_rest():
    assert all_metrics(["all", EXTRA]) == (*METRICS, EXTRA)
    assert all_metrics([EXTRA, "all", "sam"]) == (EXTRA, *METRICS)
    assert all_metrics(["sam", "sam"]) == ("sam",)
    assert all_metrics([]) == ()


def test_sharpness_measures_both(run, few, trained):
    outcome = run(
        "sharpness", trained / "0.1-0", "--metric", "all", "--metric", EXTRA, "--top", 1,
        "--probes", 2, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    found = outcome.json["checkpoints"][0]["metrics"]
    assert set(found) == {*FEW, EXTRA}
    assert found[EXTRA]["settings"]["sigma"] == 0.2
    assert found[EXTRA]["value"] != found["expected"]["value"]
    wrong = run("sharpness", trained / "0.1-0", "--metric", "all", "--metric", "nosuch")
    assert wrong.status == 2
    assert "nosuch" in wrong.error


def test_compare_measures_both(run, few, trained):
    outcome = run("compare", trained, "--metric", "all", "--metric", EXTRA, "--json")
    assert outcome.status == 0, outcome.err
    assert {test["metric"] for test in outcome.json["tests"]} == {*FEW, EXTRA}
    for group in outcome.json["groups"]:
        assert {group["metrics"][name]["n"] for name in (*FEW, EXTRA)} == {2}


def test_compare_goes_on_without_the_metric_of_one_run(run, trained):
    (trained / "0.1-1" / "final.safetensors").write_bytes(b"\0" * 50)
    asked = ("compare", trained, "--metric", "sam", "--metric", "train_loss")
    outcome = run(*asked, "--json")
    assert outcome.status == 0, outcome.err
    (missing,) = [one for one in outcome.json["missing"] if one["metric"] == "sam"]
    assert missing["run"] == str(trained / "0.1-1")
    assert "final.safetensors" in missing["why"]
    counts = [
        (group["metrics"]["sam"]["n"], group["metrics"]["train_loss"]["n"])
        for group in outcome.json["groups"]
    ]
    assert sorted(counts) == [(1, 2), (2, 2)]
    table = run(*asked)
    assert table.status == 0
    assert "sam is missing in" in table.out
    for folder in trained.iterdir():
        (folder / "final.safetensors").write_bytes(b"\0" * 50)
    nothing = run("compare", trained, "--metric", "sam")
    assert nothing.status == 2
    assert "final.safetensors" in nothing.error
