import re

import nets
import pytest
import torch
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.weights import SCOPES, grouped, included, rms


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (4, 6), (7,), ()])
def test_groups_hold_every_entry_once(scope, shape):
    weight = nets.randn(*shape)
    rows = grouped(weight, scope)
    assert rows.ndim == 2
    assert torch.equal(rows.reshape(-1), weight.reshape(-1))
    assert len(rows) == (shape[0] if scope == "filter" and len(shape) > 1 else 1)


def test_a_filter_is_a_slice_of_the_first_axis():
    weight = nets.randn(5, 3, 2, 2)
    for row, filter_ in zip(grouped(weight, "filter"), weight, strict=True):
        assert torch.equal(row, filter_.reshape(-1))


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (4, 6)])
def test_rms_of_filters(shape):
    weight = nets.randn(*shape)
    found = rms(weight, "filter")
    assert found.shape == (shape[0], *[1] * (len(shape) - 1))
    for value, filter_ in zip(found.reshape(-1), weight, strict=True):
        assert float(value) == pytest.approx(float(filter_.square().mean()) ** 0.5, rel=1e-14)


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (4, 6), (7,), ()])
def test_rms_of_layers_multiplies_the_tensor(shape):
    weight = nets.randn(*shape)
    found = rms(weight, "layer")
    assert (weight * found).shape == weight.shape
    assert float(found) == pytest.approx(float(weight.square().mean()) ** 0.5, rel=1e-14)


def _model() -> nn.Module:
    head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return nn.ModuleDict({"embed": nn.Embedding(5, 4), "body": nn.Linear(4, 4), "head": head})


NAMES = {"embed.weight", "body.weight", "body.bias", "head.0.weight", "head.0.bias",
         "head.1.weight", "head.1.bias"}  # fmt: skip


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        ("none", set()),
        ("1d", {"body.bias", "head.0.bias", "head.1.weight", "head.1.bias"}),
        ("type:Embedding", {"embed.weight"}),
        ("type:BatchNorm1d, *.bias", {"head.1.weight", "head.1.bias", "body.bias", "head.0.bias"}),
        ("type:_BatchNorm", {"head.1.weight", "head.1.bias"}),  # a base class
        ("type:Sequential", {n for n in NAMES if n.startswith("head")}),  # all that is inside
        ("1d,type:Embedding,head.*", NAMES - {"body.weight"}),
    ],
)
def test_what_is_excluded(exclude, gone):
    model = _model()
    assert set(included(dict(model.named_parameters()), exclude, model)) == NAMES - gone


@pytest.mark.parametrize("exclude", ["heads.*", "1d,type:Conv2d", "body.weight,typo", ""])
def test_what_fits_nothing_is_refused_by_name(exclude):
    model = _model()
    with pytest.raises(InputError, match=re.escape(f"'{exclude.split(',')[-1]}': there are")):
        included(dict(model.named_parameters()), exclude, model)


def test_types_need_the_model():
    with pytest.raises(InputError, match="needs the model"):
        included(dict(_model().named_parameters()), "type:Linear")


def test_a_model_of_matrices_has_no_1d_to_exclude():
    model = nn.Linear(2, 2, bias=False)
    assert set(included(dict(model.named_parameters()), "1d", model)) == {"weight"}
