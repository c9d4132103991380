"""One colour and marker a method, in all pictures."""

import itertools

import numpy as np
import pytest

from ssgd_analysis import plots
from ssgd_analysis.methods import METHODS
from ssgd_analysis.plots.looks import KNOWN, looks, method_of


def test_every_method_has_a_look_of_its_own():
    assert set(KNOWN) == set(METHODS)
    alone = [looks([name])[name] for name in KNOWN]
    assert len({(look.colour, look.marker) for look in alone}) == len(KNOWN)
    assert looks(["sgd"])["sgd"].colour == "#000000"


@pytest.mark.parametrize(
    ("name", "method"),
    [("SGD", "sgd"), ("over S-SGD", "s-sgd"), ("runs/batch-256/sam-seed0", "sam"),
     ("runs/wni-2/step-10", "wni-2"), ("S-SGD optimizer=adamw", "s-sgd"), ("s-sgd+ema", ""),
     ("label-noise-sgd", "label-noise-sgd"), ("EMA, batch 32", "ema"), ("mine", "")],
)  # fmt: skip
def test_the_method_of_a_label(name, method):
    assert method_of(name) == method


def test_the_order_does_not_matter_and_the_company_not_either():
    names = ["SGD", "S-SGD c=1", "S-SGD c=2", "SAM", "mine", "yours"]
    first = looks(names)
    for order in itertools.permutations(names):
        assert looks(order) == first
    assert looks(["SAM", "SGD"])["SAM"] == first["SAM"]


def test_no_two_look_the_same():
    names = [f"{m} lr={lr}" for m in ("sgd", "sam", "swa", "mine") for lr in range(8)]
    assert len({(look.colour, look.marker) for look in looks(names).values()}) == len(names)
    seeds = looks([f"runs/sgd-seed{i}" for i in range(8)])
    assert len({look.colour for look in seeds.values()}) == 8


def test_pictures_agree():
    x = np.linspace(0, 1, 3)
    rows = {name: (0.5, None, [0.5]) for name in ("SAM", "SGD")}
    intervals = plots.interval_figure({"": {"λ_max": rows}})
    lines = {name: plots.Line(x, x[None]) for name in ("SGD", "SAM", "EMA")}
    bands = plots.loss_bands({"": lines}, xlabel="α")
    wanted = looks(["SGD", "SAM"])
    assert intervals.axes[0].lines[0].get_color() == wanted["SAM"].colour
    assert [line.get_color() for line in bands.axes[0].lines[:2]] == [
        wanted["SGD"].colour, wanted["SAM"].colour,
    ]  # fmt: skip


def test_wide_figures_wrap_into_rows():
    metrics = {f"metric {i}": {"SGD": (0.5, (0.4, 0.6), [0.5])} for i in range(8)}
    figure = plots.interval_figure({"": metrics})
    assert figure.get_figwidth() == pytest.approx(6.9)
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 4)
