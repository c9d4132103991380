import copy

import nets
import pytest
import reference
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscape import LandscapeSettings, Subject, sample_landscape
from ssgd_analysis.landscape.directions import normalized, random_directions
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights.batchnorm import recalibrate_batchnorm


def batch_statistics(case: nets.Case, batches: list) -> dict[str, tuple[Tensor, Tensor]]:
    """Plain mean over batches of each BatchNorm's batch mean and unbiased batch variance."""
    model = nets.evaluated(case.model)
    seen: dict[str, list] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            seen[name] = []
            module.register_forward_pre_hook(
                lambda _, args, kept=seen[name]: kept.append(
                    (args[0].mean(dim=(0, 2, 3)), args[0].var(dim=(0, 2, 3)))
                )
            )
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs)
    return {
        name: tuple(torch.stack(column).mean(dim=0) for column in zip(*kept, strict=True))
        for name, kept in seen.items()
    }


@pytest.mark.parametrize("size", [nets.BATCH, nets.N])
def test_recalibration_is_the_plain_mean_of_batch_statistics(size):
    case = nets.conv_batchnorm()
    truth = batch_statistics(case, case.batches(size))
    recalibrate_batchnorm(case.model, case.batches(size))
    for name, (mean, variance) in truth.items():
        layer = case.model.get_submodule(name)
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-12, atol=1e-14)


def test_recalibration_forgets_what_was_there():
    first, second = nets.conv_batchnorm(), nets.conv_batchnorm()
    second.model[1].running_mean.add_(100)
    second.model[4].num_batches_tracked.add_(1000)
    for case in (first, second):
        recalibrate_batchnorm(case.model, case.batches())
    assert torch.equal(first.model[1].running_mean, second.model[1].running_mean)
    assert torch.equal(first.model[4].running_var, second.model[4].running_var)


@pytest.mark.parametrize("fails", [False, True])
def test_recalibration_restores_momentum_and_mode(fails):
    model = nets.conv_batchnorm().model
    model[1].momentum, model[4].momentum = 0.3, None
    modes = nets.per_module_modes(model)
    weights = [nets.bits(parameter) for parameter in model.parameters()]
    batches = nets.conv_batchnorm().batches()
    if fails:
        batches.append((nets.randn(2, 7), torch.zeros(2)))
        with pytest.raises(RuntimeError):
            recalibrate_batchnorm(model, batches)
    else:
        recalibrate_batchnorm(model, batches)
    assert (model[1].momentum, model[4].momentum) == (0.3, None)
    assert nets.per_module_modes(model) == modes
    assert [nets.bits(parameter) for parameter in model.parameters()] == weights
    assert all(parameter.grad is None for parameter in model.parameters())


def test_recalibration_drops_nothing_out():
    # as everything is measured: dropout off, whatever mode the model was lent in
    case = nets.conv_batchnorm()
    model = nn.Sequential(nn.Dropout(0.5), case.model)
    dropping = nets.Case(model, case.loss, case.inputs, case.targets)
    truth = batch_statistics(dropping, case.batches())
    model.train()
    recalibrate_batchnorm(model, case.batches())
    torch.testing.assert_close(case.model[1].running_mean, truth["1.1"][0], rtol=1e-12, atol=1e-14)


def test_recalibration_of_a_model_without_batchnorm_does_nothing():
    case = nets.with_state(nets.mlp())
    before = nets.state(case.model)
    recalibrate_batchnorm(case.model, case.batches())
    assert nets.state(case.model) == before


@pytest.mark.parametrize("how", ["filter", "none"])
def test_recalibrated_points_use_the_statistics_there(how):
    case = nets.conv_batchnorm()
    problem = Problem(*case.problem)
    subject = Subject("one", problem, case.batches())
    found = {}
    for bn in ("recalibrate", "frozen"):
        chosen = LandscapeSettings(points=4, normalize=how, bn=bn, curvature=False)
        found[bn] = sample_landscape([subject], chosen).arrays
    losses = found["recalibrate"]["loss"]
    assert (losses != found["frozen"]["loss"]).all()
    (direction,) = normalized(problem, random_directions(problem, 1, seed=0), how)
    for alpha, loss in zip(found["frozen"]["alpha"], losses, strict=True):
        assert loss == pytest.approx(recalibrated_loss(case, alpha, direction), rel=1e-12)


def recalibrated_loss(case: nets.Case, alpha: float, direction: list[Tensor]) -> float:
    moved = nets.Case(copy.deepcopy(case.model), case.loss, case.inputs, case.targets)
    with torch.no_grad():
        for parameter, part in zip(moved.model.parameters(), direction, strict=True):
            parameter.add_(alpha * part)
    for name, (mean, variance) in batch_statistics(moved, case.batches()).items():
        layer = moved.model.get_submodule(name)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return reference.loss_at(moved, reference.flat_weights(moved.model))


def test_batches_that_are_no_pairs_are_refused():
    case = nets.conv_batchnorm()
    with pytest.raises(InputError, match="--bn frozen"):
        recalibrate_batchnorm(case.model, [{"inputs": case.inputs}])
    recalibrate_batchnorm(nets.mlp().model, [{"inputs": case.inputs}])  # nothing to do
