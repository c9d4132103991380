import copy

import nets
import numpy as np
import pytest
import torch
from torch import nn

from ssgd_analysis.connections import line, train_curve
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.problem import Problem


def moved(model: nn.Module, size: float = 0.7) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for seed, parameter in enumerate(other.parameters()):
            parameter.add_(size * nets.randn(*parameter.shape, seed=seed))
    return other


def test_the_bend_of_a_quadratic_has_the_closed_form():
    """min over C of ∫ ‖φ(t) − w*‖²_H dt, φ the Bezier curve: C = 5/2 w* − 3/4 (A + B)."""
    case = nets.quadratic()
    other = moved(case.model)
    problem = Problem(*case.problem)
    whole = [(case.inputs, case.targets)] * 40
    path, gradients = train_curve(
        line(case.model, other), problem, epochs=100, lr=0.05, minibatches=lambda random: whole
    )
    best = torch.linalg.lstsq(case.inputs, case.targets).solution.T
    ends = case.model.weight.detach() + other.weight.detach()
    expected = 2.5 * best - 0.75 * ends
    assert gradients == 4000
    # what is left is the noise of t: 40 strata, and a learning rate that falls to zero
    torch.testing.assert_close(path.bends[0]["weight"], expected, rtol=0, atol=0.02)
    start = (ends / 2 - expected).abs().max()
    assert start > 0.5  # it was far from there


@pytest.mark.parametrize(("bends", "bezier"), [(1, True), (3, False)])
def test_a_curve_lowers_the_mean_loss(bends, bezier):
    case = nets.trained()
    with nets.seeded(5):
        other = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    optimizer = torch.optim.Adam(other.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        case.loss(other(case.inputs), case.targets).backward()
        optimizer.step()
    straight = line(case.model, other)
    problem = Problem(*case.problem)
    path, _ = train_curve(straight, problem, bends=bends, bezier=bezier, epochs=20, lr=0.02)

    def mean(of):
        model = copy.deepcopy(case.model)
        losses = []
        for t in np.linspace(0, 1, 41):
            model.load_state_dict(of.at(t))
            with torch.no_grad():
                losses.append(float(case.loss(model(case.inputs), case.targets)))
        return np.mean(losses)

    assert mean(path) < 0.7 * mean(straight)  # seen: half and less
    assert len(path.bends) == bends


@pytest.mark.parametrize("name", nets.CASES)
def test_any_network_is_trained_and_comes_back(name):
    case = nets.with_state(nets.CASES[name]())
    straight = line(case.model, moved(case.model, 0.1))
    before, chance = nets.state(case.model), torch.get_rng_state()
    problem = Problem(*case.problem)
    path, gradients = train_curve(straight, problem, epochs=2)
    assert gradients == 2 * len(case.batches())
    again, _ = train_curve(straight, problem, epochs=2)
    other, _ = train_curve(straight, problem, epochs=2, seed=1)
    bits = [[nets.bits(v) for v in p.bends[0].values()] for p in (path, again, other)]
    assert bits[0] == bits[1] != bits[2]
    assert set(path.bends[0]) == set(problem.parameters)
    assert nets.state(case.model) == before
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_model_comes_back_after_an_exception():
    case = nets.with_state(nets.conv_batchnorm())
    before = nets.state(case.model)
    problem = Problem(case.model, nets.RaisesAfter(case.loss, 3), case.batches())
    with pytest.raises(KeyboardInterrupt):
        train_curve(line(case.model, moved(case.model)), problem, epochs=2)
    assert nets.state(case.model) == before


def test_batch_statistics_or_those_between():
    case = nets.conv_batchnorm()
    straight, problem = line(case.model, moved(case.model)), Problem(*case.problem)
    by_batch, _ = train_curve(straight, problem, epochs=1)
    frozen, _ = train_curve(straight, problem, epochs=1, batch_statistics=False)
    name = "0.weight"
    assert not torch.equal(by_batch.bends[0][name], frozen.bends[0][name])


def test_bad_settings_and_divergence_are_said():
    case = nets.conv_batchnorm()
    straight, problem = line(case.model, moved(case.model)), Problem(*case.problem)
    with pytest.raises(InputError, match="at least 1"):
        train_curve(straight, problem, bends=0)
    with pytest.raises(InputError, match="two examples"):
        train_curve(straight, Problem(case.model, case.loss, case.batches(1)))
    with pytest.raises(WorkError, match="diverged in epoch 1"):
        train_curve(straight, Problem(case.model, lambda o, t: o.sum() * torch.inf, case.batches()))
