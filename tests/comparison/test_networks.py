"""Weights of another network are no rival: folded BatchNorm, other names, other shapes."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from ssgd_analysis.comparison.networks import network_differences, network_of


def net(seed=0, width=4, norms=2):
    torch.manual_seed(seed)
    layers = []
    for _ in range(norms):
        norm = nn.BatchNorm1d(width)
        layers += [nn.Linear(width, width), norm, nn.ReLU()]
        for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
            tensor.copy_(torch.randn(width))
        norm.running_var.copy_(torch.rand(width) + 0.5)
    return nn.Sequential(*layers, nn.Linear(width, 2)).eval()


def folded(model, *places):
    for place in places:
        model[place] = fuse_linear_bn_eval(model[place], model[place + 1])
        model[place + 1] = nn.Identity()
    return model


def neutral(model, place):
    """Folded, with a BatchNorm that does nothing left in its place."""
    norm = model[place + 1]
    folded(model, place)
    fresh = nn.BatchNorm1d(norm.num_features)
    fresh.running_var.fill_(1 - fresh.eps)
    model[place + 1] = fresh
    return model


@pytest.fixture
def kept(tmp_path):
    def keep(model):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        save_file(model.state_dict(), path)
        return path

    return keep


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: folded(net(1), 0, 3), "BatchNorm layers (1, 4), which only one side has"),
        (lambda: folded(net(1), 3), "active BatchNorm layers (4), which are folded on one side"),
        (lambda: neutral(net(1), 0), "active BatchNorm layers (1), which are folded on one side"),
        (lambda: net(1, width=5), "the shapes of their tensors (0.bias"),
        (lambda: nn.Sequential(*net(1), nn.Linear(2, 2)), "the names of their tensors (7.bias"),
        (lambda: net(1), ""),
    ],
)
def test_other_networks_are_told(kept, other, words):
    baseline = [kept(net(0)), kept(net(2))]
    found = network_differences([kept(net(3)), kept(other())], baseline)
    assert words in found
    assert bool(found) == bool(words)


def test_the_same_folding_on_both_sides_is_the_same_network(kept):
    assert not network_differences([kept(folded(net(0), 0))], [kept(folded(net(1), 0))])
    # a fresh BatchNorm acts on neither side
    fresh = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert not network_differences([kept(fresh)], [kept(fresh)])
    assert network_of(kept(fresh)).norms == frozenset()


def test_what_cannot_be_read_is_told_elsewhere(kept, tmp_path):
    (tmp_path / "damaged").write_bytes(b"\0" * 50)
    assert not network_differences([tmp_path / "damaged"], [kept(net(0)), tmp_path / "gone"])
