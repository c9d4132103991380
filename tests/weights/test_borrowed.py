import math

import nets
import pytest
import torch
from torch import nn

from ssgd_analysis.weights import borrowed_buffers, borrowed_weights, evaluation_mode


def awkward() -> list[torch.Tensor]:
    """Values whose bits are lost by adding and subtracting, and a view with gaps."""
    return [
        torch.tensor([-0.0, 0.0, 1e-320, 1e300, math.inf, math.nan], dtype=torch.float64),
        nets.randn(6, 4).T[::2],
        nn.Parameter(nets.randn(3, 3)),
    ]


def spoil(tensors: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for tensor in tensors:
            tensor.add_(0.1).mul_(-3)


def spoil_and_raise(tensors: list[torch.Tensor]) -> None:
    with borrowed_weights(tensors):
        spoil(tensors)
        raise KeyboardInterrupt


def test_exact_bits_come_back():
    tensors = awkward()
    before = [nets.bits(tensor) for tensor in tensors]
    with borrowed_weights(tensors):
        spoil(tensors)
        assert [nets.bits(tensor) for tensor in tensors] != before
    assert [nets.bits(tensor) for tensor in tensors] == before


def test_exact_bits_come_back_after_an_error():
    tensors = awkward()
    before = [nets.bits(tensor) for tensor in tensors]
    with pytest.raises(KeyboardInterrupt):
        spoil_and_raise(tensors)
    assert [nets.bits(tensor) for tensor in tensors] == before


def test_clean_values_do_not_move_with_the_weights():
    tensors = awkward()
    before = [nets.bits(tensor) for tensor in tensors]
    with borrowed_weights(iter(tensors)) as clean:
        spoil(tensors)
        assert [nets.bits(value) for value in clean] == before
        assert not any(value.requires_grad for value in clean)


def test_parameters_stay_the_same_leaves():
    parameter = nn.Parameter(nets.randn(3))
    with borrowed_weights([parameter]):
        spoil([parameter])
    assert parameter.is_leaf
    assert parameter.requires_grad
    assert parameter.grad is None


def train_and_raise(case: nets.Case) -> None:
    before = nets.bits(case.model[1].running_mean)
    with borrowed_buffers(case.model):
        case.model.train()(case.inputs)
        assert nets.bits(case.model[1].running_mean) != before
        raise KeyboardInterrupt


def test_buffers_come_back_after_an_error():
    case = nets.conv_batchnorm()
    before = nets.state(case.model)
    with pytest.raises(KeyboardInterrupt):
        train_and_raise(case)
    case.model[2].eval()
    assert nets.state(case.model) == before


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_every_module_gets_its_own_mode_back(error):
    model = nets.conv_batchnorm().model
    before = nets.state(model)
    assert len(set(nets.per_module_modes(model))) == 2  # mixed, or the test shows nothing
    try:
        with evaluation_mode(model):
            assert not any(nets.per_module_modes(model))
            model[1].running_mean.add_(1)
            model[4].train()
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert nets.state(model) == before


class Counts(nn.Module):
    """Assigns its buffer anew instead of changing it in place, as user code often does."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return self.read(x)


@pytest.mark.parametrize("context", [borrowed_buffers, evaluation_mode])
def test_a_buffer_that_was_assigned_anew_comes_back(context):
    model = Counts()
    with context(model):
        model(torch.zeros(1, 3))
    assert float(model.calls) == 0
