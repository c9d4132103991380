"""What is known of the methods that put noise into steps, gradients or labels."""

import math

import pytest
import torch
from readings.base import Still, gradient, make_method, minibatch, network
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS
from ssgd_analysis.methods.when import START, When


def weights_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


# Entropy-SGD


def test_one_inner_step_of_entropy_sgd_is_a_short_step_of_sgd():
    """L = 1, no noise: x′ = w − 0.1 (1 + 0.9) g, so w − μ is 0.25 · 0.1 · 1.9 g."""
    model = network()
    method = make_method("entropy-sgd", model, inner_steps=1, noise=0.0)
    inputs, targets = minibatch(0)
    slopes = gradient(weights_of(model), inputs, targets)
    method.gradient((inputs, targets), START)
    for parameter, slope in zip(model.parameters(), slopes, strict=True):
        torch.testing.assert_close(parameter.grad, 0.0475 * slope, rtol=1e-11, atol=1e-12)


def test_the_scope_of_entropy_sgd_narrows_with_every_step():
    """A strong pull keeps x′ at w; the counter is the step's, unlike in the Python original."""
    lengths = []
    for step in (0, 2000):
        model = network()
        method = make_method(
            "entropy-sgd", model, inner_steps=20, gamma=1.0, inner_momentum=0.0, noise=0.0
        )
        method.gradient(minibatch(0, 120), When(step=step))
        lengths.append(float(model[0].weight.grad.norm()))
    assert 1.0 * 1.001**2000 < 2 / 0.1  # the inner steps are stable there
    assert lengths[1] < 0.5 * lengths[0]


def test_too_few_examples_for_the_inner_steps():
    with pytest.raises(InputError, match="inner_steps=20 needs a minibatch of at least 20"):
        make_method("entropy-sgd", network()).gradient(minibatch(0, 6), START)


# SGLD


def test_sgld_samples_the_posterior_of_a_gaussian_mean():
    """Loss ½ (w − x)², N examples: the posterior has mean x̄ and variance 1/N."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.means = nn.Parameter(torch.zeros(2000, dtype=torch.float64))

        def forward(self, inputs):
            return self.means.expand(len(inputs), -1)

    examples, rate = 50, 0.05
    model = Constant()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    method = make_method("sgld", model, optimizer, temperature=1 / examples)
    method.passes.loss = lambda outputs, targets: (outputs - targets).square().sum() / 2
    batch = torch.zeros(1, 1), torch.full((1, 2000), 0.7, dtype=torch.float64)
    for number in range(200):  # (1 − η)²⁰⁰ of the start is left: 4e-5
        method.step(batch, When(step=number))
    values = model.means.detach()
    # 2000 chains: mean to 0.0032, variance to 3.2 percent; four times that. With steps of size
    # η the variance of the chain is 1/N / (1 − η/2).
    assert float(values.mean()) == pytest.approx(0.7, abs=0.013)
    assert float(values.var()) == pytest.approx(1 / examples / (1 - rate / 2), rel=0.13)


def test_sgld_uses_each_groups_rate():
    model = nn.Linear(200, 200).double()
    groups = [{"params": [model.weight], "lr": 1e-2}, {"params": [model.bias], "lr": 0.0}]
    method = make_method("sgld", model, torch.optim.SGD(groups), temperature=2.0, loss="mse")
    before = weights_of(model)
    inputs = torch.zeros(1, 200, dtype=torch.float64)
    method.step((inputs, model(inputs).detach()), START)
    assert torch.equal(model.bias, before[1])
    moved = float((model.weight - before[0]).detach().std())
    assert moved == pytest.approx(math.sqrt(2 * 1e-2 * 2.0), rel=0.02)  # 40 000 draws


# Labels and gradients


def test_a_probability_above_one_is_refused():
    with pytest.raises(InputError, match=r"flip=2\.0 should be at most 1"):
        METHODS["label-noise-sgd"].Settings(flip=2.0)


def labels_seen(targets, steps=1, **settings):
    """What the loss was given at each step."""
    seen = []
    model = nn.Linear(2, 5)
    method = make_method("label-noise-sgd", model, batch_size=len(targets), **settings)
    method.passes.loss = lambda outputs, labels: seen.append(labels) or outputs.sum()
    for number in range(steps):
        method.gradient((torch.zeros(len(targets), 2), targets), When(step=number))
    return seen


def test_a_wrong_label_is_uniform_among_the_others_and_new_at_every_step():
    right = torch.full((20000,), 3)
    first, second = labels_seen(right, steps=2, flip=0.4)
    shares = torch.bincount(first, minlength=5) / len(right)
    expected = torch.tensor([0.1, 0.1, 0.1, 0.6, 0.1])
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)  # four deviations
    # independent: both wrong in 0.16 of the cases
    both = float(((first != 3) & (second != 3)).float().mean())
    assert both == pytest.approx(0.16, abs=0.011)
    (always,) = labels_seen(right, flip=1.0)
    assert (always != 3).all()


def test_a_missing_label_stays_missing():
    (seen,) = labels_seen(torch.tensor([-100, 1, -100]), flip=1.0)
    assert seen[0] == seen[2] == -100
    assert seen[1] != 1


def test_targets_that_are_numbers_get_gaussian_noise():
    (seen,) = labels_seen(torch.full((20000,), 2.0), target_noise=0.3)
    assert float(seen.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(seen.std()) == pytest.approx(0.3, rel=0.03)
    (clean,) = labels_seen(torch.full((5,), 2.0), target_noise=0.0)
    assert torch.equal(clean, torch.full((5,), 2.0))


def test_counting_the_classes_costs_and_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    method = make_method("label-noise-sgd", model)
    before = [buffer.clone() for buffer in model.buffers()]
    assert method._count(torch.zeros(6, 4), torch.zeros(6, dtype=torch.long)) == 3
    assert method.passes.examples == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("gamma", "step", "variance"), [(0.55, 0, 0.3), (0.55, 99, 0.3 / 100**0.55), (0.0, 99, 0.3)]
)
def test_the_variance_of_gradient_noise(gamma, step, variance):
    model = nn.Linear(200, 200).double()
    method = make_method("gradient-noise", model, eta=0.3, gamma=gamma, loss="mse")
    inputs = torch.zeros(1, 200, dtype=torch.float64)
    method.gradient((inputs, model(inputs).detach()), When(step=step))  # its own gradient is zero
    assert float(model.weight.grad.var()) == pytest.approx(variance, rel=0.03)  # 40 000 draws


@pytest.mark.parametrize(
    ("outputs", "labels", "classes"),
    [
        ((1, 3), (1,), 3),
        ((1, 1), (1,), 2),
        ((1,), (1,), 2),
        ((1, 4), (1, 4), 2),  # a yes or no for each of four questions
        ((1, 7, 5), (1, 5), 7),  # logits along the second axis
        ((1, 5, 7), (1, 5), 7),  # along the last one
        ((1, 7, 2, 5), (1, 2, 5), 7),
    ],
)
def test_how_many_classes_there_are(outputs, labels, classes):
    model = nn.Flatten(0, -1)
    method = make_method("label-noise-sgd", model, Still([nn.Parameter(torch.zeros(1))]))
    method.passes.forward = lambda inputs: torch.zeros(outputs)
    assert method._count(torch.zeros(1, 4), torch.zeros(labels, dtype=torch.long)) == classes


def test_classes_that_cannot_be_counted_are_refused():
    method = make_method("label-noise-sgd", network())
    with pytest.raises(InputError, match="have no axis of classes"):
        method._count(minibatch(0)[0][:1], torch.zeros((1, 5), dtype=torch.long))
