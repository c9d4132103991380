"""What a method trained on is no evidence for it."""

import pytest

from ssgd_analysis.compare.circular import circular, trained_on
from ssgd_analysis.training import TrainConfig


def config(method, **settings):
    return TrainConfig(method=method, data="digits", model="mlp", settings=settings)


NOISE = {"noise_scale": 0.1}
GAUSSIAN = {"noise_law": "gaussian", "noise_relative_to": "weight", "noise_scale": 0.1}
ABSOLUTE = {"noise_law": "gaussian", "noise_relative_to": "none", "noise_scale": 0.01}


@pytest.mark.parametrize("method", ["s-sgd", "wni", "wni-2"])
@pytest.mark.parametrize(
    ("metric", "settings", "ring"),
    [
        ("symmetric_gap", NOISE, True),
        ("symmetric_gap:c=0.2", NOISE, True),  # a factor of 2 is near
        ("symmetric_gap:c=0.21", NOISE, False),
        ("symmetric_gap:c=0.05", NOISE, True),
        ("symmetric_gap:c=0.049", NOISE, False),
        ("symmetric_gap:law=gaussian", NOISE, False),
        ("symmetric_gap:scale=layer", NOISE, False),
        ("asymmetry", NOISE, True),
        ("expected", NOISE, False),  # Gaussian, relative to each weight: nobody's noise
        ("expected:law=binary,scale=filter", NOISE, True),
        ("expected", GAUSSIAN, True),
        ("expected:sigma=0.5", GAUSSIAN, False),
        ("noise_robustness", GAUSSIAN, True),
        ("lpf", ABSOLUTE, True),
        ("lpf:sigma=0.05", ABSOLUTE, False),
        ("lpf", GAUSSIAN, False),
        ("adaptive_worst", NOISE, False),
        ("lambda_max", NOISE, False),
        ("symmetric_gap", {"noise_scale": 0.0}, False),  # no noise: SGD
        # from 0.1 to 0.5 over training
        ("symmetric_gap:c=1.0", {**NOISE, "noise_schedule": "linear", "noise_end": 5.0}, True),
        ("symmetric_gap:c=0.04", {**NOISE, "noise_schedule": "linear", "noise_end": 5.0}, False),
    ],
)
def test_noise_methods(method, metric, settings, ring):
    found = circular(metric, config(method, **settings))
    assert bool(found) == ring
    if ring:
        assert found.startswith(f"{method} trained on ")


@pytest.mark.parametrize(
    ("metric", "ring"),
    [
        ("sam", True),
        ("sam:rho=0.1", True),
        ("sam:rho=0.11", False),
        ("sam:rho=0.02", False),
        ("worst_case", True),
        ("worst_case:norm=linf", False),
        ("m_sharpness", True),
        ("adaptive_worst:rho=0.05", False),
        ("keskar", False),
        ("expected", False),
    ],
)
def test_sam(metric, ring):
    assert bool(circular(metric, config("sam", rho=0.05))) == ring


@pytest.mark.parametrize("metric", ["sam", "symmetric_gap", "expected", "local_entropy", "lpf"])
def test_sgd_trained_on_nothing_but_the_loss(metric):
    assert circular(metric, config("sgd")) == ""


class Later:
    """A config of a method that is not there yet."""

    def __init__(self, method, **settings):
        self.method, self.settings = method, settings


@pytest.mark.parametrize(
    ("name", "own", "later", "ring"),
    [
        ("adaptive_worst", {"rho": 0.5, "norm": "l2"}, Later("asam", rho=0.5), True),
        ("adaptive_worst", {"rho": 0.5, "norm": "l2"}, Later("sam", rho=0.5, adaptive=True), True),
        ("sam", {"rho": 0.5}, Later("asam", rho=0.5), False),
        ("local_entropy", {"gamma": 1e4}, Later("entropy-sgd", gamma=1e4), True),
        ("local_entropy", {"gamma": 1e4}, Later("entropy-sgd", gamma=1.0), False),
        ("lpf", {"sigma": 0.01}, Later("lpf-sgd", noise_scale=0.01), True),
    ],
)
def test_methods_known_by_what_they_set(name, own, later, ring):
    assert bool(trained_on(name, own, later)) == ring
