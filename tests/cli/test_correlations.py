"""`compare --correlate` from runs to report."""

import csv
import json

import pytest
from ssgd_analysis.cli.main import main

METRICS = ["--metric", "train_loss", "--metric", "weight_norm", "--metric", "test_accuracy"]


@pytest.fixture(autouse=True)
def nothing_is_added(only_metrics):
    """No metric that counts, so that none is measured unasked."""
    only_metrics({"sam"})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two methods, two learning rates, three seeds."""
    place = tmp_path_factory.mktemp("sweep")
    for method in ("sgd", "sam"):
        for lr in ("0.02", "0.2"):
            for seed in ("0", "1", "2"):
                train = ["train", "--method", method, "--data", "digits", "--model", "mlp"]
                options = ["--epochs", "1", "--lr", lr, "--seed", seed, "--batch-size", "256"]
                with pytest.raises(SystemExit) as stop:
                    main([*train, *options, "--out", str(place / f"{method}-{lr}-{seed}")])
                assert stop.value.code == 0
    return place


def test_correlations_in_json_table_csv_and_picture(sweep, run, tmp_path):
    out = tmp_path / "report"
    told = run("compare", sweep, *METRICS, "--correlate", "--out", out)
    assert told.status == 0, told.err
    table = told.out.partition("Kendall's τ")[2].partition("correlations:")[0].splitlines()
    assert max(map(len, table)) <= 110  # a terminal's width
    (whole_row,) = [line for line in table if line.split()[:3] == ["all", "methods", "12"]][:1]
    assert whole_row.count("[") <= 3
    for name in ("correlations.csv", "correlations.png", "correlations.pdf", "scatter.png"):
        assert str(out / name) in told.out
        assert (out / name).is_file()
    found = json.loads((out / "compare.json").read_text())["correlations"]
    assert set(found) == {"convention", "outcomes", "tau", "granulated"}
    assert {row["metric"] for row in found["tau"]} == {"train_loss", "weight_norm"}
    with (out / "correlations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = next(
        row
        for row in found["tau"]
        if (row["metric"], row["outcome"], row["scope"]) == ("train_loss", "test_error", "all")
    )
    same = next(
        row
        for row in rows
        if (row["metric"], row["outcome"], row["scope"], row["coefficient"])
        == ("train_loss", "test_error", "all", "tau")
    )
    assert float(same["value"]) == whole["tau"]
    assert int(same["n"]) == whole["n"] == 12
    # a learning rate of 0.02 has learned little after one epoch: both losses are higher
    assert whole["tau"] > 0.4
    axes = {row["name"]: set(row["axes"]) for row in found["granulated"]}
    assert axes == {"sgd": {"lr"}, "sam": {"lr"}, "all methods": {"lr", "method"}}
    page = (out / "report.html").read_text()
    assert "Does flatness go with accuracy?" in page


def test_too_few_runs_are_told(sweep, run):
    one = run("compare", sweep / "sgd-0.02-0", *METRICS, "--correlate", "--json")
    for row in one.json["correlations"]["tau"]:
        assert row["tau"] is None
        assert row["ci95"] is None
        assert row["why"]
    table = run("compare", sweep / "sgd-0.02-0", *METRICS, "--correlate")
    assert table.status == 0
    assert "Kendall's τ" in table.out


def test_without_the_option_nothing_is_correlated(sweep, run, tmp_path):
    out = tmp_path / "report"
    told = run("compare", sweep, *METRICS, "--out", out)
    assert "correlations:" not in told.out
    assert not (out / "correlations.csv").exists()
    assert "correlations" not in json.loads((out / "compare.json").read_text())
