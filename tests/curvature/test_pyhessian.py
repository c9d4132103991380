import copy
import warnings

import nets
import numpy as np
import pytest
import torch
from pyhessian import hessian
from sklearn.datasets import load_digits

from ssgd_analysis.curvature import HessianOperator, eigenpairs
from ssgd_analysis.models import load_model
from ssgd_analysis.problem import Problem
from ssgd_analysis.sharpness.cross_check import cross_check_pyhessian


@pytest.fixture(scope="module")
def case() -> nets.Case:
    """The `cnn` on 70 real digits in float32, after a few steps of training."""
    images, targets = load_digits(return_X_y=True)
    inputs = torch.tensor(images[:70] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    with nets.seeded():
        model = load_model("cnn", (1, 8, 8), 10)
    made = nets.Case(model, nets.cross_entropy, inputs, torch.tensor(targets[:70]))
    train(made)
    return made


def train(case: nets.Case) -> None:
    optimizer = torch.optim.SGD(case.model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(15):
        optimizer.zero_grad()
        case.loss(case.model(case.inputs), case.targets).backward()
        optimizer.step()
    optimizer.zero_grad()


def pyhessian_eigenvalues(case: nets.Case, batches: list, top: int) -> list[float]:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its backward(create_graph=True)
        torch.manual_seed(0)
        tool = hessian(copy.deepcopy(case.model), case.loss, dataloader=batches, cuda=False)
        return tool.eigenvalues(maxIter=200, tol=1e-5, top_n=top)[0]


@pytest.mark.parametrize("size", [70, 32])
def test_same_eigenvalues(case, size):
    batches = case.batches(size)  # by 32: 32, 32 and 6
    operator = HessianOperator(Problem(case.model, case.loss, batches))
    ours = eigenpairs(operator, 2, tol=1e-5, smallest=False, generator=nets.generator())
    theirs = pyhessian_eigenvalues(case, batches, 2)
    # power iteration stops when the value moves by 1e-5 of itself, up to 1e-3 off the limit
    np.testing.assert_allclose([pair.value for pair in ours.largest], theirs, rtol=1e-3)


def test_cross_check_prints_both(case):
    before = nets.state(case.model)
    random = torch.random.get_rng_state()
    found = cross_check_pyhessian(Problem(case.model, case.loss, case.batches(32)), 2)
    assert set(found) == {"ours", "pyhessian", "largest_difference", "right", "note"}
    assert [len(found[side]) for side in ("ours", "pyhessian")] == [2, 2]
    assert all(set(entry) == {"value", "residual"} for entry in found["ours"] + found["pyhessian"])
    # tol is 1e-6, below float32's own rounding over the 15 k parameters of the cnn
    assert all(entry["residual"] <= 1e-4 for entry in found["ours"])
    gaps = [
        abs(a["value"] - b["value"]) for a, b in zip(found["ours"], found["pyhessian"], strict=True)
    ]
    assert found["largest_difference"] == pytest.approx(max(gaps) / found["ours"][0]["value"])
    assert found["largest_difference"] < 1e-3
    assert found["right"] == [
        "ours" if a["residual"] <= b["residual"] else "pyhessian"
        for a, b in zip(found["ours"], found["pyhessian"], strict=True)
    ]
    assert nets.state(case.model) == before
    assert torch.equal(torch.random.get_rng_state(), random)


def test_cross_check_says_when_pyhessian_fails():
    found = cross_check_pyhessian(Problem(*nets.unused().problem), 2)
    assert found["pyhessian"] is None
    assert found["largest_difference"] is None
    assert found["note"].startswith("PyHessian failed: ")
    assert len(found["ours"]) == 2


def test_cross_check_of_some_layers(case):
    problem = Problem(case.model, case.loss, case.batches(32), layers=["*.weight"])
    found = cross_check_pyhessian(problem, 1)
    assert found["pyhessian"] is not None, found["note"]
    assert found["largest_difference"] < 1e-3
