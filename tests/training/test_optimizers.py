import pytest
import torch
from torch import nn

from ssgd_analysis.training.optimizers import OPTIMIZERS, make_optimizer


def _make(name: str, **options) -> torch.optim.Optimizer:
    given = {"lr": 0.01, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1, **options}
    return make_optimizer(name, nn.Linear(2, 2).parameters(), **given)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_options_reach_the_optimizer_that_has_them(name):
    optimizer = _make(name)
    assert type(optimizer) is OPTIMIZERS[name].make
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    assert group.get("momentum") == (None if OPTIMIZERS[name].momentum is None else 0.5)
    assert group.get("nesterov", False) is (name == "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_can_be_used(name):
    entry = OPTIMIZERS[name]
    optimizer = _make(name, lr=entry.lr, momentum=entry.momentum, nesterov=False)
    parameters = optimizer.param_groups[0]["params"]
    before = parameters[0].detach().clone()
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not torch.equal(parameters[0], before)
