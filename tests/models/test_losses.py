import math

import pytest
import torch

from ssgd_analysis.errors import InputError
from ssgd_analysis.models import LOSSES, load_loss


def test_names():
    assert set(LOSSES) == {"cross_entropy", "mse"}
    assert all(load_loss(name) is loss for name, loss in LOSSES.items())


def test_cross_entropy_is_the_mean_in_nats():
    outputs = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    rows = [row.tolist() for row in outputs]
    exact = [
        math.log(sum(map(math.exp, row))) - row[t] for row, t in zip(rows, (1, 2), strict=True)
    ]
    found = load_loss("cross_entropy")(outputs, torch.tensor([1, 2]))
    assert float(found) == pytest.approx(sum(exact) / 2, rel=1e-14)  # a few roundings


def test_mse_takes_labels_as_one_hot():
    outputs = torch.tensor([[0.5, 0.0, 2.0], [1.0, 1.0, 0.0]])
    expected = (0.5**2 + 1 + 2**2 + 0 + 1 + 0) / 6
    assert float(load_loss("mse")(outputs, torch.tensor([1, 0]))) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("target_shape", [(4,), (4, 1)])
def test_mse_never_broadcasts_a_column_against_a_row(shape, target_shape):
    outputs = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(shape)
    targets = torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(target_shape)
    assert float(load_loss("mse")(outputs, targets)) == 1.0  # 4 / 4; broadcast, it would be 5


def test_mse_of_several_values():
    outputs, targets = torch.zeros(2, 3), torch.tensor([[1.0, 2, 3], [0, 0, 2]])
    assert float(load_loss("mse")(outputs, targets)) == 3.0


@pytest.mark.parametrize(
    ("shape", "target_shape"),
    [
        ((4, 3), (4,)),
        ((4, 3), (4, 1)),
        ((4, 1), (4, 3)),
        ((4,), (1,)),
        ((2, 3), (3, 2)),  # as many values, but of other examples
    ],
)
def test_mse_refuses_shapes_that_do_not_fit(shape, target_shape):
    with pytest.raises(InputError) as caught:
        load_loss("mse")(torch.zeros(shape), torch.zeros(target_shape))
    assert str(shape) in str(caught.value)
    assert str(target_shape) in str(caught.value)


def test_mse_has_the_gradient_of_the_mean():
    outputs = torch.tensor([[1.0, 3.0]], requires_grad=True)
    load_loss("mse")(outputs, torch.tensor([[0.0, 1.0]])).backward()
    assert outputs.grad.tolist() == [[1.0, 2.0]]  # 2 (y − t) / 2
