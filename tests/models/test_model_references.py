"""A user's own model or loss by reference."""

import pytest
import torch

from ssgd_analysis.errors import InputError
from ssgd_analysis.models import load_loss, load_model

SOURCE = """
import torch
from torch import nn

def both(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], num_outputs))

def classes_only(num_outputs):
    return nn.Linear(6, num_outputs)

def neither():
    return nn.Linear(6, 2)

def everything(**kwargs):
    return nn.Linear(6, len(kwargs) + 10)

def needs_more(width):
    return nn.Linear(6, width)

def no_module():
    return 3

def frozen():
    return nn.Linear(6, 2).requires_grad_(False)

def no_parameters():
    return nn.ReLU()

class Own(nn.Linear):
    def __init__(self, num_outputs=2):
        super().__init__(6, num_outputs)

    @staticmethod
    def wide():
        return nn.Linear(6, 99)

def loss(outputs, targets):
    return (outputs[:, 0] - targets).abs().mean()

number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mymodel.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("attribute", "outputs"),
    [
        ("both", 5),
        ("classes_only", 5),
        ("neither", 2),
        ("everything", 12),
        ("Own", 5),
        ("Own.wide", 99),
    ],
)
def test_factories_get_the_keywords_they_accept(file, attribute, outputs):
    model = load_model(f"{file}:{attribute}", (2, 3), 5)
    shape = (4, 2, 3) if attribute == "both" else (4, 6)
    assert model(torch.randn(*shape)).shape == (4, outputs)


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("needs_more", "width"),
        ("no_module", "int"),
        ("frozen", "no parameters"),
        ("no_parameters", "no parameters"),
        ("number", "not a callable"),
        ("missing", "no attribute 'missing'"),
    ],
)
def test_unfit_models_are_refused_by_name(file, attribute, why):
    with pytest.raises(InputError) as caught:
        load_model(f"{file}:{attribute}", (2, 3), 5)
    assert f"{file}:{attribute}" in str(caught.value)
    assert why in str(caught.value)


def test_loss_by_reference(file):
    loss = load_loss(f"{file}:loss")
    assert loss(torch.tensor([[3.0], [1.0]]), torch.tensor([1.0, 1.0])) == 1
    with pytest.raises(InputError, match=r"loss reference .*not a callable"):
        load_loss(f"{file}:number")
    with pytest.raises(InputError, match="loss reference"):
        load_loss("no_such_module_anywhere:loss")


def test_loss_by_module_reference():
    assert load_loss("torch.nn.functional:l1_loss") is torch.nn.functional.l1_loss


def test_unknown_loss_comes_with_the_nearest():
    with pytest.raises(InputError, match="unknown loss 'crossentropy': did you mean"):
        load_loss("crossentropy")
