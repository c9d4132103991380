"""Losses that call torch's own ones, but are not their values, or not of the outputs' rows."""

import nets
import pytest
import torch
import torch.nn.functional as F
from differences import hessian, weighted
from torch import Tensor, nn

from ssgd_analysis.curvature import FisherOperator, HessianOperator, MonteCarloFisherOperator
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

WEIGHT = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)


def net(outputs: int = 3) -> nn.Module:
    with nets.seeded():
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def batches(sizes: tuple[int, ...] = (4, 5)) -> list[tuple[Tensor, Tensor]]:
    x, y = nets.randn(sum(sizes), 4), nets.labels(sum(sizes))
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def dense(operator) -> Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


def changed(outputs: Tensor, targets: Tensor) -> Tensor:
    """The very tensor that cross_entropy returned, but with another value."""
    loss = F.cross_entropy(outputs, targets, weight=WEIGHT)
    loss += outputs.square().mean()
    return loss


def divided(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = F.cross_entropy(outputs, targets, reduction="sum")
    loss /= len(targets)
    return loss


def absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    weight = torch.arange(1.0, 4.0, dtype=torch.float64).expand_as(outputs) * targets[:, None]
    return F.l1_loss(outputs, torch.zeros_like(outputs), weight=weight + 0.1)


@pytest.mark.parametrize("loss", [changed, divided, absolute])
def test_the_value_counts_and_not_the_call(loss):
    model, data = net(), batches()
    truth = weighted(lambda m, b: loss(m(b[0]), b[1]), data, [4, 5])
    problem = Problem(model, loss, data)
    assert problem.mean_loss() == pytest.approx(float(truth(model).detach()), rel=1e-12)


@pytest.mark.parametrize("loss", [changed, divided])
def test_and_its_hessian(loss):
    model, data = net(), batches()
    truth, _ = hessian(model, weighted(lambda m, b: loss(m(b[0]), b[1]), data, [4, 5]))
    torch.testing.assert_close(
        dense(HessianOperator(Problem(model, loss, data))), truth, rtol=1e-6, atol=1e-8
    )


def reordered(outputs: Tensor, targets: Tensor) -> Tensor:
    order = targets.argsort()
    return F.cross_entropy(outputs[order], targets[order], weight=WEIGHT)


COUPLED = {
    "reordered": reordered,
    "centred": lambda o, t: F.cross_entropy(o - o.mean(0), t),
    "broadcast": lambda o, t: F.mse_loss(o[:, 0], t[:, None].double()),
    "chosen": lambda o, t: F.cross_entropy(o[t > 0], t[t > 0]),
    "of a dict": lambda o, t: F.cross_entropy(o, t["y"]) * 1.0,
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", COUPLED)
def test_no_fisher_matrix_where_rows_of_the_loss_are_not_those_of_the_outputs(name):
    data = batches()
    if name == "of a dict":
        data = [(x, {"y": y}) for x, y in data]
    with pytest.raises(InputError, match="mean of its examples' losses"):
        dense(FisherOperator(Problem(net(), COUPLED[name], data)))


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: F.cross_entropy(3 * o, t),
        lambda o, t: F.cross_entropy(o.reshape(-1, 3), t.reshape(-1)),
        lambda o, t: F.mse_loss(o.sigmoid(), o.detach()),
    ],
)
def test_labels_are_drawn_of_the_outputs_themselves_only(loss):
    with pytest.raises(InputError, match="directly on"):
        dense(MonteCarloFisherOperator(Problem(net(), loss, batches())))


def test_a_batch_of_which_nothing_is_chosen_counts_nothing():
    def chosen(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs[targets == 1], targets[targets == 1])

    model = net()
    x, y = nets.randn(8, 4), torch.tensor([0, 2, 0, 0, 1, 1, 0, 1])
    problem = Problem(model, chosen, [(x[:4], y[:4]), (x[4:], y[4:])])
    truth = chosen(model(x), y)
    assert problem.mean_loss() == pytest.approx(float(truth.detach()), rel=1e-12)


def test_a_loss_that_holds_on_to_the_model_is_measured():
    model = net()

    def decayed(outputs: Tensor, targets: Tensor) -> Tensor:
        decay = sum(p.square().sum() for p in model.parameters())
        return F.cross_entropy(outputs, targets) + 0.1 * decay

    problem = Problem(model, decayed, batches())
    plain, _ = hessian(
        model, weighted(lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches(), [4, 5])
    )
    truth = plain + 0.2 * torch.eye(len(plain), dtype=torch.float64)
    torch.testing.assert_close(dense(HessianOperator(problem)), truth, rtol=1e-6, atol=1e-8)


def test_an_accuracy_is_no_count():
    def loss(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        right = (outputs.argmax(1) == targets).double()
        return F.cross_entropy(outputs, targets), right.mean() / 3

    with pytest.raises(InputError, match=r"but the count .* is not"):
        Problem(net(), loss, batches()).mean_loss()


class Itself(nn.Linear):
    def __deepcopy__(self, memo):
        return self


def test_a_model_that_is_its_own_copy_keeps_its_precision():
    model = Itself(4, 3)
    data = [(x.float(), y) for x, y in batches()]
    _ = HessianOperator(Problem(model, F.cross_entropy, data)) @ torch.ones(15)
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize("dim", [0, 1, -1, -2])
def test_weight_norm_along_any_axis(dim):
    with nets.seeded():
        layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3).double(), dim=dim)
    model, data = nn.Sequential(layer), batches()
    truth, _ = hessian(model, weighted(lambda m, b: F.cross_entropy(m(b[0]), b[1]), data, [4, 5]))
    found = dense(HessianOperator(Problem(model, F.cross_entropy, data)))
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-8)


def test_weights_that_depend_on_the_outputs_are_refused():
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs[:, 0], targets.double(), weight=outputs[:, 0].sigmoid())

    with pytest.raises(InputError, match="weights of the loss's terms depend"):
        dense(HessianOperator(Problem(net(), loss, batches())))
