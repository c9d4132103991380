"""The variance of a method's gradient over its noise, against enumeration and theory."""

import itertools

import pytest
import torch
from readings.base import bits, gradient, make_method, minibatch, moved, network, run_steps
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.noise_variance import noise_variance

SIZE = 0.05  # of absolute noise


class Tiny(nn.Module):
    """A tanh unit on six weights and a bias without noise: 64 sign patterns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Parameter(torch.randn(1, 4, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(2, 1, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ self.inner.T) @ self.outer.T


def _exact(points: list[int], size: float) -> tuple[Tensor, float, float]:
    """Mean, total variance, and variance of the squared distance, over all sign patterns.

    Args:
        points: signs at which the gradients are averaged.
        size: of the noise.
    """
    model = Tiny()
    weights = [p.detach().clone() for p in model.parameters()]
    inputs, targets = minibatch(0)
    targets = nn.functional.one_hot(targets % 2, 2).double()

    def slope(places: list[Tensor]) -> Tensor:
        leaves = [place.clone().requires_grad_() for place in places]
        output = torch.tanh(inputs @ leaves[0].T) @ leaves[1].T
        value = (output - targets).square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, leaves)])

    rows = []
    for signs in itertools.product((-1.0, 1.0), repeat=6):
        pattern = size * torch.tensor(signs, dtype=torch.float64)
        n = [pattern[:4].reshape(1, 4), pattern[4:].reshape(2, 1)]
        rows.append(sum(slope(moved(weights, n, sign)) for sign in points) / len(points))
    table = torch.stack(rows)
    spread = (table - table.mean(dim=0)).square().sum(dim=1)
    return table.mean(dim=0), float(spread.mean()), float(spread.var(correction=0))


def _measured(name: str, draws: int, **settings) -> dict[str, float]:
    model = Tiny()
    chosen = {"noise_scale": SIZE, "noise_relative_to": "none", **settings}
    method = make_method(name, model, loss="mse", **chosen)
    inputs, targets = minibatch(0)
    one_hot = nn.functional.one_hot(targets % 2, 2).double()
    return noise_variance(method, (inputs, one_hot), draws)


@pytest.mark.parametrize(
    ("name", "points", "share"),
    [("wni", [1], 1), ("wni-2", [1], 2), ("s-sgd", [1, -1], 1), ("alternating", [1], 1)],
)
def test_is_that_of_all_sign_patterns(name, points, share):
    draws = 1000
    mean, variance, of_spread = _exact(points, SIZE)
    found = _measured(name, draws)
    # the standard error of a mean of squared distances, and of a squared norm; five of each
    error = 5 * (of_spread / draws) ** 0.5
    assert found["variance"] == pytest.approx(variance / share, abs=error)
    square = float(mean @ mean)
    allowed = 5 * 2 * (square * variance / draws) ** 0.5
    assert found["mean_square"] == pytest.approx(square, abs=allowed)
    assert found["stderr"] == pytest.approx(0, abs=2 * (of_spread / draws) ** 0.5 + 1e-12)
    assert found["stderr"] > 0


def test_several_pairs_divide_the_variance():
    _, variance, of_spread = _exact([1, -1], SIZE)
    found = _measured("s-sgd", 300, pairs=4)
    # a mean of four has a spread whose own spread is a quarter, or less, of one pair's
    assert found["variance"] == pytest.approx(variance / 4, abs=5 * (of_spread / 300) ** 0.5 / 2)


@pytest.mark.parametrize(("points", "power"), [([1], 2), ([1, -1], 4)])
def test_the_pair_turns_a_square_law_into_a_fourth_power(points, power):
    """σ² ‖H‖² one-sided, σ⁴ from ½ D³L[n, n] for the pair: halving σ shows the exponent."""
    coarse, fine = (_exact(points, size)[1] for size in (2e-2, 1e-2))
    # the next term is smaller by σ², here 1e-4 times a curvature ratio of some tens
    assert coarse / fine == pytest.approx(2**power, rel=0.03)


def test_the_leading_terms_are_those_of_theory():
    model, size = Tiny(), 1e-3
    inputs, targets = minibatch(0)
    one_hot = nn.functional.one_hot(targets % 2, 2).double()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(w: Tensor) -> Tensor:
        output = torch.tanh(inputs @ w[:4].reshape(1, 4).T) @ w[4:].reshape(2, 1).T
        return (output - one_hot).square().mean()

    hessian = torch.func.hessian(loss)(flat)
    third = torch.func.jacrev(torch.func.hessian(loss))(flat)
    one_sided = size**2 * float(hessian.square().sum())
    off_diagonal = third.square().sum() - torch.einsum("iij->ij", third).square().sum()
    # ½ D³L[n, n]: Var = ¼ · 2 Σ_{i≠j} for signs, whose squares do not scatter
    pair = size**4 * float(off_diagonal) / 2
    assert _exact([1], size)[1] == pytest.approx(one_sided, rel=1e-4)  # next: σ² ~ 1e-6 × tens
    assert _exact([1, -1], size)[1] == pytest.approx(pair, rel=1e-3)  # float64: 1e-16 / 1e-12


def test_everything_is_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    method = make_method("s-sgd", model)
    run_steps(method, 2)
    passes = method.passes
    before = bits(model), [b.clone() for b in model.buffers()], passes.gradients
    grads = [(p.grad, p.grad.clone()) for p in model.parameters()]
    momenta = [passes.optimizer.state[p]["momentum_buffer"].clone() for p in model.parameters()]
    noise_variance(method, minibatch(0), draws=3)
    assert bits(model) == before[0]
    for found, kept in zip(model.buffers(), before[1], strict=True):
        assert torch.equal(found, kept)
    assert (passes.gradients,) == before[2:]
    for parameter, (grad, value), momentum in zip(model.parameters(), grads, momenta, strict=True):
        assert parameter.grad is grad
        assert torch.equal(grad, value)
        assert torch.equal(passes.optimizer.state[parameter]["momentum_buffer"], momentum)


def test_a_method_without_noise_has_no_variance():
    model = network()
    found = noise_variance(make_method("sgd", model), minibatch(0), draws=3)
    weights = [p.detach() for p in model.parameters()]
    slope = torch.cat([g.flatten() for g in gradient(weights, *minibatch(0))])
    assert found["variance"] == pytest.approx(0, abs=1e-30)  # the mean of three is rounded
    assert found["mean_square"] == pytest.approx(float(slope @ slope), rel=1e-12)


def test_one_draw_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        noise_variance(make_method("s-sgd", network()), minibatch(0), draws=1)
