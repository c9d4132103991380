"""What a method trained on is no evidence for it."""

import pytest

from ssgd_analysis.comparison.circular import circular
from ssgd_analysis.runs import TrainConfig


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


@pytest.mark.parametrize(
    ("method", "settings", "metric", "ring"),
    [
        ("alternating", NOISE, "symmetric_gap", True),
        ("alternating", {"noise_scale": 0.3}, "symmetric_gap", False),
        ("s-sgd+ema", NOISE, "symmetric_gap", True),
        ("ema", {}, "symmetric_gap", False),
        ("s-sgd", {**NOISE, "noise_start": 0.5, "noise_stop": 0.5}, "symmetric_gap", False),
        ("nso", {}, "lpf", True),
        ("nso", {}, "expected:law=gaussian,scale=none,sigma=0.02", True),
        ("nso", {}, "expected", False),
        ("nso", {"noisy_share": 0.0}, "lpf", False),
        ("nso", {"noise_schedule": "rising", "noise_scale": 1.0}, "lpf", True),
        ("anti-pgd", {"noise_law": "gaussian", "noise_scale": 0.01}, "lpf", True),
        ("anti-pgd", {}, "lpf", False),
        ("anti-pgd", {}, "expected:law=binary,scale=none,sigma=0.05", True),
        # U(−a, a) has root mean square a/√3
        ("smoothout", {"strength": 0.1}, "expected:law=uniform,scale=none,sigma=0.0577", True),
        ("smoothout", {"strength": 0.1}, "expected:law=uniform,scale=none,sigma=0.12", False),
        (
            "smoothout",
            {"strength": 0.1, "adapt_type": "weight"},
            "expected:law=uniform,scale=weight,sigma=0.05",
            True,
        ),
        (
            "smoothout",
            {"strength": 0.1, "adapt_type": "filter"},
            "expected:law=sphere,scale=filter,sigma=0.1",
            True,
        ),
        ("smoothout", {"strength": 0.0}, "expected:law=uniform,scale=none,sigma=0.01", False),
        ("lpf-sgd", {}, "lpf", True),
        ("lpf-sgd", {"noise_scale": 0.0}, "lpf", False),
        ("lpf-sgd", {}, "expected:law=gaussian,scale=filter,sigma=0.3", True),
        ("lpf-sgd", {}, "expected", False),
        ("rwp", {}, "lpf", True),
        ("rwp", {"noisy_share": 0.0}, "lpf", False),
        ("arwp", {}, "symmetric_gap:law=gaussian", True),
        ("arwp", {}, "symmetric_gap", False),
        ("m-arwp", {}, "noise_robustness:scale=filter", True),
        ("entropy-sgd", {}, "local_entropy", True),  # γ grows without end
        ("entropy-sgd", {"scoping": 0.0}, "local_entropy", False),
        ("entropy-sgd", {"scoping": 0.0, "gamma": 1e4}, "local_entropy", True),
        ("entropy-sgd", {}, "lpf", False),
        ("sgld", {}, "local_entropy", False),
        ("label-noise-sgd", {}, "expected", False),
        ("gradient-noise", {}, "lpf", False),
        ("asam", {}, "adaptive_worst:rho=0.5", True),
        ("asam", {}, "sam:rho=0.5", False),
        ("gsam", {}, "sam:rho=0.05", True),
        ("gsam", {}, "sam:rho=0.01", False),
        ("gsam", {"rho_schedule": "lr"}, "sam:rho=0.01", True),
        ("esam", {}, "sam:rho=0.05", True),
        ("looksam", {}, "sam:rho=0.05", True),
        ("looksam", {}, "local_entropy", False),
        ("asam", {"rho": 0.5}, "adaptive_worst:rho=0.5,norm=l2", True),
        ("gradient-penalty", {}, "gradient_norm", True),
        ("gradient-penalty", {"alpha": 0.0}, "gradient_norm", False),
        ("sam", {}, "gradient_norm", False),
    ],
)
def test_rivals(method, settings, metric, ring):
    found = circular(metric, config(method, **settings))
    assert bool(found) == ring
    if ring:
        assert found.startswith(f"{method} trained on ")


@pytest.mark.parametrize(
    ("schedule", "metric", "ring"),
    [
        ("constant", "symmetric_gap:c=0.01", False),
        ("constant", "symmetric_gap", True),
        ("cosine", "symmetric_gap:c=0.01", True),
    ],
)
def test_noise_tied_to_the_learning_rate(schedule, metric, ring):
    settings = {**NOISE, "noise_schedule": "lr"}
    tied = TrainConfig(
        method="s-sgd", data="digits", model="mlp", settings=settings, schedule=schedule
    )
    assert bool(circular(metric, tied)) == ring
