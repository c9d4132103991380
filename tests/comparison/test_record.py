"""What ``compare`` returns, from Python alone: a table, a picture, files."""

import csv
import json

import pytest
from matplotlib.figure import Figure

from ssgd_analysis.comparison import Comparison, MeasurementSettings, compare, find_runs, group_runs
from ssgd_analysis.errors import InputError
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train

WORST = "adaptive_worst:steps=2"  # counts, so that nothing is added
METRICS = ["test_accuracy", "train_loss", "lambda_max", WORST]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for method in ("sgd", "s-sgd"):
            config = TrainConfig(
                method=method, data="two_moons", model="mlp", epochs=1, batch_size=100, seed=seed
            )
            train(config, folder / f"{method}-{seed}")
    return folder


@pytest.fixture(scope="module")
def found(runs):
    settings = MeasurementSettings(samples=100)
    return compare(runs, metrics=METRICS, settings=settings, loss_tolerance=2.0)


def test_the_record_is_the_document_of_the_command(found, runs, run):
    call = ["compare", runs, "--samples", 100, "--loss-tolerance", 2.0, "--json"]
    for metric in METRICS:
        call += ["--metric", metric]
    assert run(*call).json == found.to_json()


def test_folders_runs_and_groups_are_the_same(found, runs):
    settings = MeasurementSettings(samples=100)
    options = {"metrics": METRICS, "settings": settings, "loss_tolerance": 2.0}
    paths = [str(path) for path in sorted(runs.iterdir())]
    groups = group_runs(find_runs([runs])[0])
    assert compare(paths, **options).to_json() == found.to_json()
    assert compare(groups, **options).to_json() == found.to_json()
    with pytest.raises(InputError, match="not both"):
        compare([*groups, runs], **options)


def test_one_row_a_test(found):
    rows = found.rows()
    assert [(row["group"], row["metric"]) for row in rows] == [
        ("s-sgd", "lambda_max"), ("s-sgd", WORST),
    ]  # fmt: skip
    assert all(row["low"] < row["difference"] < row["high"] for row in rows)


def test_what_is_shown_fits_a_terminal(found):
    title, header, *lines = repr(found).splitlines()
    assert title == "Comparison"
    assert header.split() == ["against", "sgd", "metric", "difference", "p", "(Holm)", "verdict"]
    assert [line.split()[:2] for line in lines] == [["s-sgd", name] for name in
        ("lambda_max", WORST, "test_accuracy", "train_loss")]  # fmt: skip
    low, high = found.tests[0]["ci95"]
    assert f"[{low:.3g}, {high:.3g}]" in lines[0]
    assert found.tests[0]["verdict"] in lines[0]
    renamed = [{**test, "group": "a method " * 20} for test in found.tests]
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    long = repr(Comparison(**{**fields, "tests": renamed})).splitlines()
    assert max(map(len, long)) == 100
    assert "a method a method" in long[2]


def test_the_picture_goes_into_the_axes_that_are_given(found):
    axes = Figure().subplots()
    assert found.plot(axes) is axes
    assert axes.get_xlabel() == "relative difference"
    assert found.plot().get_xlabel() == "relative difference"
    empty = compare_nothing(found)
    with pytest.raises(InputError, match="no test"):
        empty.plot()


def compare_nothing(found):
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return Comparison(**{**fields, "tests": [], "overall": []})


def test_the_answer_is_in_the_record_and_in_its_document(found):
    document = found.to_json()
    assert document["answer"] == found.answer
    assert found.answer.startswith("Is s-sgd flatter than sgd? ")
    (row,) = document["table"]
    assert (row["rival"], row["metric"]) == ("s-sgd vs sgd", WORST)
    assert row["difference"] == found.tests[1]["difference"]
    assert row["flatness"] == {"no difference": "same"}.get(
        found.overall[0]["verdict"], found.overall[0]["verdict"]
    )
    assert compare_nothing(found).answer.startswith("Is s-sgd more accurate than sgd? ")


def test_if_no_metric_counts_the_default_ones_are_measured_too(runs, found):
    options = {"settings": MeasurementSettings(samples=20), "loss_tolerance": 2.0}
    for asked in ("test_accuracy", "lambda_max"):
        more = compare(runs, metrics=[asked], **options)
        assert more.added == ("expected", "adaptive_worst")
        assert more.overall[0]["counted"] == list(more.added)
        assert not more.advice
    assert found.added == ()
    apart = compare(runs, metrics=["lambda_max"], **{**options, "loss_tolerance": 0.0})
    assert apart.added == ()  # they would not be compared


def test_saving_writes_page_tables_and_pictures(found, tmp_path):
    written = found.save(tmp_path / "new" / "report")
    names = {path.name for path in written}
    assert {"report.html", "groups.csv", "tests.csv", "differences.png"} <= names
    stored = json.loads((tmp_path / "new" / "report" / "compare.json").read_text())
    values = stored.pop("values")
    assert stored == found.to_json()
    assert len(values["sgd"][WORST]) == 2
    with (tmp_path / "new" / "report" / "tests.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found.tests)
