"""The quick passes of a chain of layers: autograd's bits, or none at all."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssgd_analysis.methods import Passes
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import setup, train
from ssgd_analysis.training.chain import chain_of

KNOWN = (F.cross_entropy,)


def _net(dtype=torch.float32):
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(12, 9), nn.ReLU())
    layers = [nn.Flatten(), hidden, nn.Linear(9, 8, bias=False), nn.Tanh(), nn.Linear(8, 5)]
    return nn.Sequential(*layers).to(dtype)


def _minibatch(dtype=torch.float32, size=7):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, 3, 4, generator=generator, dtype=dtype)
    targets = torch.randint(5, (size,), generator=generator)
    targets[0] = -100  # does not count
    return inputs, targets


def _passes(model, quick):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Passes(model, F.cross_entropy, optimizer, batch_size=7, quick=quick)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_passes_have_autograds_bits(dtype):
    plain, other = _net(dtype), _net(dtype)
    quick = chain_of(other, F.cross_entropy, KNOWN)
    one, two = _passes(plain, None), _passes(other, quick)
    for share in (1.0, 0.5, 0.25):  # the later ones add to what is there
        losses = [passes.backward(_minibatch(dtype), share=share) for passes in (one, two)]
        assert losses[0] == losses[1]
    assert list(quick.agrees.values()) == [True]
    assert one.gradients == two.gradients == 3
    for mine, its in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)
        assert mine.grad.stride() == its.grad.stride()


@pytest.mark.parametrize("method", ["sgd", "s-sgd", "sam", "esam", "adam"])
def test_a_run_has_the_same_bits_with_and_without(tmp_path, monkeypatch, method):
    config = TrainConfig(method=method, data="digits", model="mlp", epochs=2, batch_size=64)
    quick = train(config, tmp_path / "quick")["final"]
    monkeypatch.setattr(setup, "chain_of", lambda *given: None)
    plain = train(config, tmp_path / "plain")["final"]
    assert {**quick, "seconds": 0} == {**plain, "seconds": 0}
    same = [(tmp_path / name / "final.safetensors").read_bytes() for name in ("quick", "plain")]
    assert same[0] == same[1]


def test_a_pass_that_someone_watches_is_autograds():
    model = _net()
    quick = chain_of(model, F.cross_entropy, KNOWN)
    assert quick(*_minibatch(), 1.0) is not None
    seen = []
    handles = [
        model.register_forward_hook(lambda *given: seen.append(0)),
        model[1][0].register_forward_hook(lambda *given: seen.append(1)),
        model[2].weight.register_hook(lambda grad: seen.append(2)),
    ]
    for handle in handles:
        assert quick(*_minibatch(), 1.0) is None
        handle.remove()
    model[2].weight.requires_grad_(False)
    assert quick(*_minibatch(), 1.0) is None
    model[2].weight.requires_grad_(True)
    assert quick(*_minibatch(), 1.0) is not None


def test_other_numbers_are_never_used():
    model = _net()
    quick = chain_of(model, F.cross_entropy, KNOWN)
    quick.layers = quick.layers[:-1]  # no longer what autograd is held against
    assert quick(*_minibatch(), 1.0) is None
    assert quick(*_minibatch(), 1.0) is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labels_out_of_range_are_refused_as_ever():
    model = _net()
    inputs, targets = _minibatch()
    targets[1] = 5
    with pytest.raises(Exception, match="out of bounds"):
        _passes(model, chain_of(model, F.cross_entropy, KNOWN)).backward((inputs, targets))


class _Mine(nn.Linear):
    pass


SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(
    "model",
    [
        _Mine(3, 2),
        nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        nn.Sequential(SHARED, nn.ReLU(), SHARED),
        nn.Sequential(nn.Flatten(2), nn.Linear(3, 2)),
        nn.Sequential(nn.ReLU(), nn.Linear(3, 2)),
        nn.Sequential(),
    ],
)
def test_other_models_are_left_to_autograd(model):
    assert chain_of(model, F.cross_entropy, KNOWN) is None


def test_other_losses_are_left_to_autograd():
    assert chain_of(_net(), F.mse_loss, KNOWN) is None
    assert chain_of(_net(), F.cross_entropy, KNOWN) is not None
