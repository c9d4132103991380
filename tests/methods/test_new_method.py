"""A method is one file and one line in the table: everything else finds it there."""

import json
from dataclasses import dataclass

import pytest
from method_checks import methods_without_docs, methods_without_reading
from readings.base import make_method, network, run_steps

from ssgd_analysis.comparison.circular import circular
from ssgd_analysis.methods import METHODS, find_method
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.studies.budget import epochs_within


@dataclass(frozen=True, kw_only=True)
class MadeUpSettings(MethodSettings):
    """Settings of the made-up method."""

    reach: float = setting(0.3, "how far it reaches", minimum=0)


class MadeUp(Method):
    """Made up: the plain gradient, twice."""

    Settings = MadeUpSettings

    @classmethod
    def passes_per_step(cls, settings):
        return 2

    @classmethod
    def trained_on(cls, settings, lr_schedule="constant"):
        return [TrainedOn(kind="adaptive ascent", low=settings.reach, high=settings.reach)]

    @classmethod
    def freezes_batchnorm(cls, settings):
        return True

    def gradient(self, batch, when):
        self.passes.backward(batch, share=0.5)
        return self.passes.backward(batch, share=0.5)


@pytest.fixture
def made_up(monkeypatch):
    """The table with one more line."""
    monkeypatch.setitem(METHODS, "made-up", MadeUp)
    find_method.cache_clear()
    yield
    find_method.cache_clear()


def config(method: str, **settings) -> TrainConfig:
    return TrainConfig(method=method, data="digits", model="mlp", settings=settings)


def test_the_list_shows_it_with_its_settings(made_up, run):
    listed = {entry["name"]: entry for entry in json.loads(run("list", "methods", "--json").out)}
    assert listed["made-up"]["summary"] == "Made up: the plain gradient, twice"
    assert [entry["name"] for entry in listed["made-up"]["settings"]] == ["reach"]


def test_docs_and_conformance_miss_it(made_up):
    assert methods_without_docs() == {"made-up"}
    assert methods_without_reading() == {"made-up"}


@pytest.mark.parametrize("name", ["made-up", "made-up+ema"])
def test_what_it_trains_on_is_circular(made_up, name):
    found = circular("adaptive_worst:rho=0.3", config(name))
    assert found == f"{name} trained on a worst case at rho = 0.3"
    assert circular("adaptive_worst:rho=0.3", config(name, reach=1.0)) == ""
    assert circular("sam:rho=0.3", config(name)) == ""


def test_budgets_wrappers_and_steps_take_it(made_up):
    assert epochs_within(10, "made-up", {}) == 5
    assert find_method("made-up+swa").freezes_batchnorm(find_method("made-up+swa").Settings())
    method = make_method("made-up+ema", network())
    run_steps(method, 3)
    assert method.passes.gradients == 6
