"""Products are held against differences of first derivatives before anything is made of them."""

import nets
import pytest
import torch
import torch.nn.functional as F
from differences import hessian
from torch import Tensor, nn

from ssgd_analysis.curvature import GGNOperator, HessianOperator, Options
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.problem import Problem
from ssgd_analysis.sharpness import measure


class Swish(torch.autograd.Function):
    """A right first derivative; the second one takes s for a constant, as it is kept aside."""

    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.x, ctx.s = x, s
        return x * s

    @staticmethod
    def backward(ctx, slope):
        return slope * (ctx.s * (1 + ctx.x * (1 - ctx.s)))


class Cube(torch.autograd.Function):
    """x³ whose saved square is a constant to autograd: its second derivative is missing."""

    @staticmethod
    def forward(ctx, x):
        ctx.square = x.detach() ** 2
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return 3 * slope * ctx.square


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def problem(function, dtype: torch.dtype = torch.float32, loss=F.cross_entropy) -> Problem:
    with nets.seeded():
        model = nn.Sequential(nn.Linear(4, 6), Apply(function), nn.Linear(6, 3)).to(dtype)
    inputs, labels = nets.randn(30, 4).to(dtype), nets.labels(30)
    return Problem(model, loss, list(zip(inputs.split(8), labels.split(8), strict=True)))


def truth(of: Problem) -> Tensor:
    batches = of.batches
    inputs, labels = (torch.cat([batch[i] for batch in batches]) for i in (0, 1))
    return hessian(of.model, lambda model: F.cross_entropy(model(inputs.double()), labels))[0]


@pytest.mark.parametrize("function", [Swish.apply, Cube.apply])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_second_derivative_is_an_error_that_offers_differences(function, dtype):
    wrong = problem(function, dtype)
    with pytest.raises(InputError, match=r"central differences.*--product difference"):
        _ = HessianOperator(wrong) @ torch.ones(wrong.n_parameters, dtype=dtype)
    with pytest.raises(InputError, match="--product difference"):
        measure(wrong, top=1, probes=4)
    with pytest.raises(InputError, match="--product difference"):
        METRICS["trace"](Problem(wrong.model, wrong.loss, wrong.batches))
    operator = HessianOperator(wrong, options=Options(strategy="difference"))
    dense = operator @ torch.eye(wrong.n_parameters, dtype=dtype)
    torch.testing.assert_close(dense.double(), truth(wrong), rtol=1e-4, atol=1e-6)


class WrongLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outputs, labels):
        chances = outputs.softmax(1)
        ctx.slope = (chances - F.one_hot(labels, 3)).detach() / len(outputs)
        return F.cross_entropy(outputs, labels)

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.slope, None


def test_a_loss_with_a_wrong_second_derivative_is_found_by_gauss_newton_too():
    wrong = problem(torch.tanh, loss=lambda outputs, labels: WrongLoss.apply(outputs, labels))
    with pytest.raises(InputError, match="--product difference"):
        _ = GGNOperator(wrong) @ torch.ones(wrong.n_parameters)
    right = problem(torch.tanh)
    options = Options(strategy="difference")
    eye = torch.eye(wrong.n_parameters)
    found = GGNOperator(wrong, options=options) @ eye
    torch.testing.assert_close(found, GGNOperator(right) @ eye, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("function", [torch.tanh, torch.relu, F.gelu, F.hardtanh, torch.abs])
@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
def test_right_products_pass_and_the_record_says_how_closely(function, kind):
    right = problem(function)
    operator = kind(right)
    _ = operator @ torch.ones(right.n_parameters)
    assert operator.engine.checks.dtype == "float64"
    assert operator.engine.checks.difference < 1e-4
    assert operator.engine.checks.symmetry < 1e-3
    record = measure(right, operator="hessian", top=1, probes=4).document
    assert record["checks"]["difference"] < 1e-4


def test_a_kink_at_the_weights_is_no_error():
    right = problem(torch.relu)
    with torch.no_grad():
        right.model[0].weight.zero_()  # every ReLU stands at its corner
        right.model[0].bias.zero_()
    operator = HessianOperator(right)
    _ = operator @ torch.ones(right.n_parameters)
    assert "kink" in operator.engine.checks.why


def test_a_loss_that_float64_does_not_fit_is_checked_in_float32():
    weight = torch.tensor([1.0, 2.0, 3.0])  # float32, hidden in a closure

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels, weight=weight)

    operator = HessianOperator(problem(torch.tanh, loss=loss))
    _ = operator @ torch.ones(operator.shape[0])
    assert operator.engine.checks.dtype == "float32"
    assert operator.engine.checks.difference < 0.05
    wrong = problem(Cube.apply, loss=loss)
    with pytest.raises(InputError, match="central differences"):
        _ = HessianOperator(wrong) @ torch.ones(wrong.n_parameters)


def test_second_derivatives_that_are_not_finite_are_named_with_a_remedy():
    def root(x: Tensor) -> Tensor:  # at zero it has a slope, but its slope has none
        return x.abs().pow(1.5)

    broken = problem(root)
    with torch.no_grad():
        broken.model[0].weight.zero_()
        broken.model[0].bias.zero_()
    assert all(part.isfinite().all() for part in broken.gradient())
    with pytest.raises(WorkError, match=r"Pow.*seen in 0.weight.*--product difference"):
        _ = HessianOperator(broken) @ torch.ones(broken.n_parameters)


def test_weights_and_kept_products_survive_the_check():
    right = problem(torch.tanh)
    before = nets.state(right.model)
    operator = HessianOperator(right)
    first = operator @ torch.ones(right.n_parameters)
    assert operator.products == 1  # those of the check are not the user's
    assert torch.equal(operator @ torch.ones(right.n_parameters), first)
    assert nets.state(right.model) == before


def test_a_small_wrong_layer_beside_large_right_ones_is_found():
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with nets.seeded():
                self.right, self.wrong = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.right(20 * x) + 0.05 * Swish.apply(self.wrong(x))

    data = [(nets.randn(30, 4).float(), nets.labels(30))]
    problem = Problem(Beside(), F.cross_entropy, data)
    with pytest.raises(InputError, match="central differences"):
        _ = HessianOperator(problem) @ torch.ones(problem.n_parameters)


def test_a_sum_is_refused_by_every_operator_of_a_problem():
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    summed = Problem(nn.Linear(4, 3), nn.CrossEntropyLoss(reduction="sum"), [(x[:6], y[:6])] * 2)
    for _ in range(2):
        with pytest.raises(InputError, match="sum"):
            _ = HessianOperator(summed) @ torch.ones(summed.n_parameters)
