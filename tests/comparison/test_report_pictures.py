"""What the report's pictures are given: numbers that follow from the comparison's."""

import math

import pytest

from ssgd_analysis.pictures.comparison import comparison_pictures, relative_effects, scatter_points

NAMES = {"lambda_max": "λ_max", "test_accuracy": "test accuracy"}


def result(**changes):
    test = {
        "metric": "lambda_max",
        "group": "sam",
        "baseline": "sgd",
        "difference": -2.0,
        "ci95": [-3.0, -1.0],
        "verdict": "flatter",
        **changes,
    }

    def group(name, mean):
        metrics = {m: {"mean": mean} for m in ("test_accuracy", "lambda_max", "trace")}
        return {"name": name, "seeds": [0, 1], "metrics": metrics}

    return {"groups": [group("sgd", -8.0), group("sam", 6.0)], "tests": [test]}


VALUES = {
    "sgd": {"test_accuracy": [0.9, 0.8], "lambda_max": [7.0, 9.0], "trace": []},
    "sam": {"test_accuracy": [0.9, 0.7], "lambda_max": [6.0], "trace": []},
}


def test_differences_relative_to_the_size_of_the_baseline():
    effect = relative_effects(result(), NAMES)["λ_max"]["sam"]
    assert effect.value == pytest.approx(-0.25)  # the mean is −8: its size counts, not its sign
    assert effect.interval == pytest.approx((-0.375, -0.125))
    assert (effect.verdict, effect.circular, effect.margin) == ("flatter", False, None)


def test_the_size_is_that_of_the_comparison_where_it_is_told():
    """At matched loss the baseline is another checkpoint than the group's final one."""
    told = result(relative=-0.5, margin=0.4, circular="it was trained on this")
    effect = relative_effects(told, NAMES)["λ_max"]["sam"]
    assert effect.value == pytest.approx(-0.5)
    assert effect.interval == pytest.approx((-0.75, -0.25))
    assert effect.margin == pytest.approx(0.1)
    assert effect.circular


def test_what_is_missing_stays_missing():
    effect = relative_effects(result(difference=None, ci95=None), NAMES)["λ_max"]["sam"]
    assert (effect.value, effect.interval) == (None, None)


def test_scatter_has_accuracy_last_and_no_shifted_runs():
    points = scatter_points(result(), VALUES, NAMES)
    assert list(points["sgd"]) == ["λ_max", "test accuracy"]
    assert points["sgd"]["λ_max"] == [7.0, 9.0]
    # one of two runs lacks it, and it is not known which
    assert all(math.isnan(value) for value in points["sam"]["λ_max"])


def test_only_what_there_is_is_drawn(tmp_path):
    drawn = comparison_pictures(tmp_path, result(), VALUES, NAMES)
    assert set(drawn) == {"differences", "verdicts", "scatter"}
    assert all(path.is_file() for paths in drawn.values() for path in paths)
    alone = {"groups": result()["groups"][:1], "tests": []}
    few = {"sgd": {"lambda_max": [1.0, 2.0]}}
    assert comparison_pictures(tmp_path, alone, few, NAMES) == {}
