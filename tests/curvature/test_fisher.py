import nets
import pytest
import reference
import torch
from torch import nn

from ssgd_analysis.curvature import MonteCarloFisherOperator
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

DRAWS = 4000


def dense(operator) -> torch.Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


@pytest.mark.parametrize("net", ["mlp", "regression", "positions", "embedding"])
def test_many_draws_give_the_ggn(net):
    case = nets.CASES[net]()
    operator = MonteCarloFisherOperator(Problem(*case.problem), draws=DRAWS)
    truth, found = reference.ggn(case), dense(operator)
    # entries are means of 4000 draws whose spread is of the order of the matrix
    assert float((found - truth).norm()) < 6 / DRAWS**0.5 * float(truth.norm())


def test_one_number_an_example_is_regression_too():
    with nets.seeded():
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()
    case = nets.Case(model, nets.mse, nets.randn(nets.N, 3), nets.randn(nets.N, seed=1))
    operator = MonteCarloFisherOperator(Problem(*case.problem), draws=DRAWS)
    truth, found = reference.ggn(case), dense(operator)
    assert float((found - truth).norm()) < 6 / DRAWS**0.5 * float(truth.norm())


@pytest.mark.parametrize("net", ["mlp", "positions", "regression"])
def test_one_draw_is_one_positive_matrix(net):
    case = nets.CASES[net]()
    operator = MonteCarloFisherOperator(Problem(*case.problem))
    matrix = dense(operator)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-9, atol=1e-12)
    assert float(torch.linalg.eigvalsh(matrix)[0]) > -1e-12
    with torch.no_grad():  # a state that is built anew has the same labels
        for parameter in case.model.parameters():
            parameter.mul_(1.0)
    torch.testing.assert_close(dense(operator), matrix, rtol=1e-12, atol=1e-14)
    assert float((matrix - reference.ggn(case)).norm()) > 0.01 * float(matrix.norm())


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.functional.cross_entropy, nets.cross_entropy]
)
def test_cross_entropy_is_known_however_it_is_written(loss):
    case = nets.mlp()
    found = MonteCarloFisherOperator(Problem(case.model, loss, case.batches()))
    assert torch.equal(dense(found), dense(MonteCarloFisherOperator(Problem(*case.problem))))


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(label_smoothing=0.1), nn.functional.huber_loss, lambda o, t: o.sum()],
)
def test_other_losses_have_no_labels_to_draw(loss):
    case = nets.mlp()
    with pytest.raises(InputError, match=r"cross_entropy or mse|does not take"):
        MonteCarloFisherOperator(Problem(case.model, loss, case.batches()))
