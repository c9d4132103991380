import nets
import pytest
import torch

from ssgd_analysis.weights import SCOPES, grouped, rms


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
