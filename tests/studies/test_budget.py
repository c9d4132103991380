"""Equal cost: epochs from a budget, and what was spent."""

import pytest

from ssgd_analysis.methods import find_method, make_settings
from ssgd_analysis.studies.budget import epochs_within, spending


@pytest.mark.parametrize(
    ("method", "settings", "epochs"),
    [
        ("sgd", {}, 60),
        ("wni", {"noise_scale": 0.2}, 60),
        ("s-sgd", {}, 30),
        ("wni-2", {}, 30),
        ("sam", {}, 30),
        ("s-sgd+ema", {}, 30),
        ("s-sgd", {"minibatch": "halves"}, 60),  # a pass over each half
    ],
)
def test_epochs_that_a_budget_of_60_buys(method, settings, epochs):
    assert epochs_within(60, method, settings) == epochs


@pytest.mark.parametrize("name", ["s-sgd", "looksam", "esam", "nso", "rwp", "lpf-sgd"])
def test_what_is_bought_costs_the_budget_to_half_an_epoch(name):
    """Whatever a step costs, fractions of a pass included, epochs are the nearest whole ones."""
    entry = find_method(name)
    settings = make_settings(name, entry, {})
    of_an_epoch = entry.passes_per_step(settings) / entry.minibatches(settings)
    for budget in (7, 40, 61.5):
        epochs = epochs_within(budget, name, {})
        assert abs(epochs * of_an_epoch - budget) <= of_an_epoch / 2 + 1e-9


def test_fractional_passes_of_settings_count():
    """A clean forward pass costs a third: 60 / (2 + 1/3) = 25.7."""
    assert epochs_within(60, "s-sgd", {"bn_stats": "clean"}) == 26
    assert epochs_within(0.1, "s-sgd", {}) == 1  # never none


def test_the_largest_deviation_is_seen():
    rows = spending({"a": {"x": [100, 100], "y": [102, 102], "z": [80, 80]}, "b": {"x": [5.0]}})
    found = {(row["setting"], row["arm"]): row["deviation"] for row in rows}
    assert found["a", "x"] == 0
    assert found["a", "y"] == pytest.approx(0.02)
    assert found["a", "z"] == pytest.approx(-0.2)
    assert found["b", "x"] == 0
