"""A loss described by plain values, in any process: equal for equal losses, else different."""

import functools
import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.problem.described import described


def made(weight):
    def loss(outputs, targets):
        return weight * F.cross_entropy(outputs, targets)

    return loss


class Loss:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, outputs, targets):
        return self.weight * F.cross_entropy(outputs, targets)


W, V = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
LOSSES = {
    "functional": lambda: F.cross_entropy,
    "another functional": lambda: F.multi_margin_loss,
    "module": lambda: nn.CrossEntropyLoss(),
    "module, smoothing": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "module, weights": lambda: nn.CrossEntropyLoss(weight=W.clone()),
    "module, other weights": lambda: nn.CrossEntropyLoss(weight=V.clone()),
    "partial": lambda: functools.partial(F.cross_entropy, weight=W.clone()),
    "partial, other weights": lambda: functools.partial(F.cross_entropy, weight=V.clone()),
    "closure": lambda: made(1.0),
    "closure, other weight": lambda: made(2.0),
    "object": lambda: Loss(1.0),
    "object, other weight": lambda: Loss(2.0),
}


def test_equal_losses_are_described_alike_and_others_are_not():
    texts = [json.dumps(described(make())) for make in LOSSES.values()]
    assert texts == [json.dumps(described(make())) for make in LOSSES.values()]
    assert len(set(texts)) == len(texts)


def test_another_process_describes_a_loss_alike():
    script = (
        "import functools, json, torch, torch.nn.functional as F\n"
        "from ssgd_analysis.problem.described import described\n"
        "loss = functools.partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0]))\n"
        "def own(a, b, scale=(1, 'x')):\n    return [a for _ in scale if b]\n"
        "print(json.dumps([described(loss), described(own)]))"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout
    assert json.dumps(described(LOSSES["partial"]())) in first.stdout


def problem(loss, names=None):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    found = Problem(net, loss, [(torch.randn(8, 3), torch.arange(8) % 2)])
    return found if names is None else found.restricted(names)


def test_the_fingerprint_of_a_problem_knows_loss_and_parameters():
    losses = [F.cross_entropy, nn.CrossEntropyLoss(weight=W), nn.CrossEntropyLoss(weight=V)]
    found = [problem(loss).fingerprint() for loss in losses]
    found += [problem(F.cross_entropy, [name]).fingerprint() for name in ("weight", "bias")]
    assert len(set(found)) == 5
    assert problem(F.cross_entropy).fingerprint() == found[0]


def test_a_loss_that_is_refused_is_refused_again():
    summed = problem(nn.CrossEntropyLoss(reduction="sum"))
    for _ in range(3):
        with pytest.raises(InputError, match="sum"):
            summed.check()
        assert not summed.checked
