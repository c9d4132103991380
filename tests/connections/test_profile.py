import copy

import nets
import numpy as np
import pytest
import torch
from torch import nn

from ssgd_analysis.connections import Profile, barrier, evaluate_path, line
from ssgd_analysis.problem import Problem


def moved(model: nn.Module, size: float = 0.7) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for seed, tensor in enumerate([*other.parameters(), *other.buffers()]):
            if tensor.is_floating_point():
                tensor.add_(size * nets.randn(*tensor.shape, seed=seed).abs())
    return other


@pytest.mark.parametrize("name", nets.CASES)
def test_ends_are_the_checkpoints_own_losses_and_nothing_changes(name):
    case = nets.with_state(nets.CASES[name]())
    other = moved(case.model)
    problem = Problem(*case.problem)
    before = nets.state(case.model), nets.state(other), torch.get_rng_state()
    own = problem.evaluate(), Problem(other, case.loss, case.batches()).evaluate()
    found = evaluate_path(line(case.model, other), {"train": problem}, [0, 0.5, 1])["train"]
    for k, (loss, accuracy) in ((0, own[0]), (2, own[1])):
        assert found.loss[k] == loss  # exactly
        assert accuracy is None or found.accuracy[k] == accuracy
    assert before[:2] == (nets.state(case.model), nets.state(other))
    assert torch.equal(before[2], torch.get_rng_state())
    assert np.isfinite(found.loss).all()


def test_a_quadratic_has_the_closed_form():
    case = nets.quadratic()
    other = moved(case.model)
    t = np.linspace(0, 1, 9)
    found = evaluate_path(line(case.model, other), {"train": Problem(*case.problem)}, t)["train"]
    a, b = case.model.weight.detach(), other.weight.detach()
    for place, loss in zip(t, found.loss, strict=True):
        w = (1 - place) * a + place * b
        residual = case.inputs @ w.T - case.targets
        assert loss == pytest.approx(float(residual.square().mean()), rel=1e-12)
    assert barrier(found).value == 0  # convex: below the line between the ends


def test_recalibrated_statistics_are_those_of_the_weights_between():
    """One calibration batch: its mean and unbiased variance, by hand."""
    case = nets.conv_batchnorm()
    model = nn.Sequential(*list(case.model)[:2], nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    other = moved(model)
    problem = Problem(model, case.loss, case.batches())
    found = evaluate_path(
        line(model, other), {"train": problem}, [0, 0.25, 1], calibration=[(case.inputs, None)]
    )["train"]
    for t, loss in zip((0, 0.25, 1), found.loss, strict=True):
        w = [(1 - t) * a.detach() + t * b.detach() for a, b in zip(
            model.parameters(), other.parameters(), strict=True)]  # fmt: skip
        x = nn.functional.conv2d(case.inputs, w[0], padding=1)
        flat = x.movedim(1, 0).flatten(1)
        mean, variance = (v[:, None, None] for v in (flat.mean(1), flat.var(1)))
        x = (x - mean) / (variance + 1e-5).sqrt() * w[1][:, None, None] + w[2][:, None, None]
        expected = nn.functional.cross_entropy(x.mean((2, 3)), case.targets)
        assert loss == pytest.approx(float(expected), rel=1e-12)


def profile(t, losses, rights=None, shares=None) -> Profile:
    losses, t = np.array(losses, float), np.array(t, float)
    shares = np.full(losses.shape[1], 1 / losses.shape[1]) if shares is None else np.array(shares)
    rights = None if rights is None else np.array(rights, float)
    accuracy = np.full(len(t), np.nan) if rights is None else rights @ shares
    return Profile(t, shares, losses, rights, losses @ shares, accuracy)


def test_barrier_is_above_the_line_not_above_an_end():
    # ends 1 and 3: the line is 2.5 at t = 0.75, where the loss is 3.2; at 0.25 it is 2.0 over 1.5
    found = barrier(profile([0, 0.25, 0.75, 1], [[1, 1], [2, 2], [3.1, 3.3], [3, 3]]))
    assert found.value == pytest.approx(0.7)
    assert (found.at, found.extreme_at) == (0.75, 0.75)
    assert found.extreme == pytest.approx(3.2)
    assert found.ends == (1.0, 3.0)
    assert found.stderr == pytest.approx(0.1)  # differences 0.6 and 0.8: s / √2


def test_barrier_of_accuracy_is_a_fall():
    rights = [[0.9, 1.0], [0.5, 0.7], [0.8, 0.9]]
    found = barrier(profile([0, 0.5, 1], np.ones((3, 2)), rights), accuracy=True)
    assert found.value == pytest.approx(0.9 - 0.6)
    assert found.extreme == pytest.approx(0.6)
    assert found.ends == pytest.approx((0.95, 0.85))
    assert barrier(profile([0, 0.5, 1], np.ones((3, 2))), accuracy=True) is None


def test_the_sampling_error_is_that_of_many_samples():
    """Batches of unequal size drawn again and again: the spread of the barrier at a fixed t."""
    random, sizes = np.random.default_rng(0), np.array([5, 5, 5, 5, 5, 5, 5, 2])
    heights, errors = [], []
    for _ in range(2000):
        examples = [random.normal(size=(n, 3)).mean(axis=0) for n in sizes]
        losses = np.array(examples).T + np.array([1, 9, 2])[:, None]  # the barrier is in the middle
        found = barrier(profile([0, 0.5, 1], losses, shares=sizes / sizes.sum()))
        heights.append(found.value)
        errors.append(found.stderr**2)
    # of one example 1 + ¼ + ¼; 2000 draws tell a variance to 3%: four standard errors
    assert np.mean(errors) == pytest.approx(1.5 / sizes.sum(), rel=0.13)
    assert np.var(heights) == pytest.approx(1.5 / sizes.sum(), rel=0.13)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_hole_is_a_barrier_without_height(bad):
    found = barrier(profile([0, 0.5, 1], [[1, 1], [bad, 1], [1, 1]]))
    assert found.value == np.inf
    assert (found.at, found.stderr) == (0.5, None)


def test_no_barrier_has_no_error():
    found = barrier(profile([0, 0.5, 1], [[1, 2], [0.5, 1], [1, 2]]))
    assert (found.value, found.stderr) == (0, None)
    assert barrier(profile([0, 0.5, 1], [[1], [2], [1]])).stderr is None  # one batch
