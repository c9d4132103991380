"""The estimate of a study's time, of methods whose steps differ, in any precision."""

from types import SimpleNamespace

import pytest
import torch

from ssgd_analysis import random_state
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.weight_noise import WeightNoiseMethod
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.studies import estimate as module
from ssgd_analysis.studies.cells import Cell
from ssgd_analysis.studies.estimate import estimate_cost

PASS = 0.004  # seconds, far above all else of a step


@pytest.fixture
def slow(monkeypatch):
    """Passes that take a known time, whatever the machine does."""
    spent = {"clock": 0.0}
    backward = Passes.backward

    def timed(self, batch, *, share=1.0):
        spent["clock"] += PASS * self.size(batch) / self.batch_size
        return backward(self, batch, share=share)

    monkeypatch.setattr(Passes, "backward", timed)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: spent["clock"]))
    return spent


def cell(tmp_path, method="s-sgd", precision="fp32", **settings):
    config = TrainConfig(
        method=method, data="two_moons", model="mlp", epochs=2, batch_size=100,
        settings=settings, precision=precision,
    )  # fmt: skip
    return Cell("", method, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("method", "settings", "passes"),
    [
        ("sgd", {}, 1),
        ("s-sgd", {"noise_scale": 0.1}, 2),
        ("s-sgd", {"noise_scale": 0.1, "noise_start": 0.5}, 1.5),
        ("s-sgd", {"noise_scale": 0.1, "noise_start": 0.25, "noise_stop": 0.5}, 1.25),
        ("s-sgd", {"noise_scale": 0.1, "noise_schedule": "lr"}, 2),
        ("s-sgd", {"noise_scale": 0.0}, 1),
        ("sam", {}, 2),
        ("looksam", {"k": 4}, 1.25),
    ],
)
def test_training_is_timed_at_the_mean_passes_of_a_step(tmp_path, slow, method, settings, passes):
    one = cell(tmp_path, method, **settings)
    found = estimate_cost([one], jobs=1)
    steps = one.config.epochs * 5  # an epoch is 500 examples
    assert found.passes == steps * passes
    # the clock moves by passes alone; a sample of steps holds them in nearly the mean's proportion
    assert found.training == pytest.approx(PASS * steps * passes, rel=1e-6)


@pytest.mark.parametrize(
    "settings", [{"noise_schedule": "lr"}, {"noise_start": 0.4, "noise_stop": 0.6}, {}]
)
def test_noise_is_on_where_steps_are_timed(tmp_path, slow, monkeypatch, settings):
    """At a learning rate of zero noise that is tied to it is none, nor at the start late noise."""
    scales = []
    scale = WeightNoiseMethod.scale
    monkeypatch.setattr(
        WeightNoiseMethod, "scale", lambda *given: scales.append(scale(*given)) or scales[-1]
    )
    estimate_cost([cell(tmp_path, noise_scale=0.1, **settings)], jobs=1)
    assert max(scales) == pytest.approx(0.1)
    assert (min(scales) == 0) == ("noise_stop" in settings)


def test_float16_steps_that_overflow_are_skipped(tmp_path, monkeypatch):
    """A loss scale of 2¹²⁰ overflows in the first steps, as they are skipped in training too."""
    prepare = module.prepare

    def overflowing(config):
        parts = prepare(config)
        parts.passes.scale.value = 2.0**120
        return parts

    monkeypatch.setattr(module, "prepare", overflowing)
    found = estimate_cost([cell(tmp_path, precision="fp16", noise_scale=0.1)], jobs=1)
    assert 0 < found.training < 1e4


def test_weights_do_not_move_while_steps_are_timed(tmp_path, monkeypatch):
    benches = []
    prepare = module.prepare

    def kept(config):
        benches.append(prepare(config))
        return benches[-1]

    monkeypatch.setattr(module, "prepare", kept)
    for method in ("sgd", "s-sgd", "sam"):
        one = cell(tmp_path, method)
        estimate_cost([one], jobs=1)
        with random_state.seeded(one.config.seed):
            fresh = prepare(one.config)
        for a, b in zip(benches[-1].model.parameters(), fresh.model.parameters(), strict=True):
            assert torch.equal(a, b)
