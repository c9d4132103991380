"""What symmetric noise does, in closed form: quadratics, odd orders, means and variances."""

import itertools

import pytest
import torch
from readings.base import Step, Still, bits, make_method, minibatch, network, noise, run_steps
from readings.core import s_sgd
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.when import START, When
from ssgd_analysis.weights import LAWS, SCALES, Noise

# Quadratics


def _quadratic(name: str, optimizer: type = torch.optim.SGD, **settings) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    base = optimizer(model.parameters(), lr=0.1)
    method = make_method(name, model, base, loss="mse", **settings)
    for number in range(6):
        inputs, _ = minibatch(number)
        method.step((inputs, inputs[:, :2].sin()), When(step=number, fraction_done=number / 6))
    return [parameter.detach() for parameter in model.parameters()]


VARIANTS = [{"noise_law": law, "noise_relative_to": to} for law in LAWS for to in SCALES] + [
    {"pairs": 3},
    {"noise_per": "layer"},
    {"noise_per": "sample"},
    {"noise_per": "sample", "noise_law": "laplace", "pairs": 2},
    {"noise_schedule": "cosine"},
]


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_on_a_quadratic_a_step_is_sgds(optimizer, settings):
    found = _quadratic("s-sgd", optimizer, noise_scale=0.3, exclude="none", **settings)
    for one, other in zip(found, _quadratic("sgd", optimizer), strict=True):
        # float64 over six steps; Adam divides by the gradient's size, which keeps it relative
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_on_a_quadratic_halves_do_not_cancel():
    """Each example sees one sign: H of one half differs from that of the other."""
    found = _quadratic("s-sgd", noise_scale=0.3, minibatch="halves")
    assert (found[0] - _quadratic("sgd")[0]).abs().max() > 1e-3


# Odd orders


class Polynomial(nn.Module):
    """Its one weight matrix, shape (1, 3), is its output: the loss is a function of w alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.7, -1.1, 0.4]], dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weight.expand(len(inputs), 3)


POWER = {3: lambda outputs, _: (outputs**3).sum(1).mean(), 4: lambda o, _: (o**4).sum(1).mean()}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("power", "closed"),
    [
        (3, lambda w, n: 3 * w**2 + 3 * n**2),
        (4, lambda w, n: 4 * w**3 + 12 * w * n**2),  # 4(w±n)³ without w²n and n³
    ],
)
def test_odd_orders_of_the_noise_cancel(law, power, closed):
    model = Polynomial()
    settings = {"noise_scale": 0.5, "noise_law": law, "noise_relative_to": "none"}
    method = make_method("s-sgd", model, Still(model.parameters()), **settings)
    method.passes.loss = POWER[power]
    method.gradient(minibatch(0), START)
    w = model.weight.detach()
    n = noise([w], Step(method.settings, seed=0, number=0, elapsed=0.0), 0)[0]
    torch.testing.assert_close(model.weight.grad, closed(w, n), rtol=1e-13, atol=1e-14)


# Means


def _slopes(sign_of: list[int], seed: int = 0) -> Tensor:
    """Gradients averaged over ``sign_of``, for all 2⁶ patterns on a net of six noisy weights."""
    torch.manual_seed(seed)
    inner, outer = torch.randn(1, 4).double(), torch.randn(2, 1).double()
    inputs, _ = minibatch(0)
    rows = []
    for pattern in itertools.product((-0.3, 0.3), repeat=6):
        n = torch.tensor(pattern, dtype=torch.float64)
        slopes = []
        for sign in sign_of:
            first = (inner + sign * n[:4].reshape(1, 4)).requires_grad_()
            second = (outer + sign * n[4:].reshape(2, 1)).requires_grad_()
            value = (torch.tanh(inputs @ first.T) @ second.T).sin().square().mean()
            slopes.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(value, (first, second))])
            )
        rows.append(torch.stack(slopes).mean(dim=0))
    return torch.stack(rows)


def test_the_mean_over_all_signs_is_that_of_one_sided_noise():
    symmetric, one_sided = _slopes([1, -1]), _slopes([1])
    torch.testing.assert_close(symmetric.mean(0), one_sided.mean(0), rtol=1e-13, atol=1e-15)
    assert symmetric.var(dim=0).sum() < 0.5 * one_sided.var(dim=0).sum()


def test_the_mean_over_draws_is_that_of_one_sided_noise():
    draws = 600

    def gradients(name: str) -> Tensor:
        model = network()
        method = make_method(name, model, Still(model.parameters()), noise_scale=0.3)
        rows = []
        for number in range(draws):
            method.passes.optimizer.zero_grad()
            method.gradient(minibatch(0), When(step=number))
            rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        return torch.stack(rows)

    symmetric, one_sided = gradients("s-sgd"), gradients("wni")
    apart = (symmetric.mean(0) - one_sided.mean(0)).square().sum()
    # trace of the covariance of the difference of both means; its own spread is smaller than it
    error = (symmetric.var(0).sum() + one_sided.var(0).sum()) / draws
    assert float(apart) < 4 * float(error)
    plain = network()
    make_method("sgd", plain).gradient(minibatch(0), START)
    clean = torch.cat([p.grad.flatten() for p in plain.parameters()])
    own = symmetric.var(0).sum() / draws
    assert (symmetric.mean(0) - clean).square().sum() > 10 * own  # noise has a mean effect


# Variances


def test_signs_scatter_less_than_gaussian_noise():
    """Of ½ D³L[n, n]: 2 Σ_{i≠j} for signs, 2 Σ_{ij} for a Gaussian, times ¼ c⁴."""
    torch.manual_seed(0)
    size, width = 0.5, 5
    third = torch.randn(width, width, width, dtype=torch.float64)
    third = sum(third.permute(order) for order in itertools.permutations(range(3))) / 6

    def half_third(noises: Tensor) -> Tensor:
        return torch.einsum("kij,ni,nj->nk", third, noises, noises) / 2

    everything = third.square().sum()
    diagonal = torch.einsum("kii->ki", third).square().sum()
    patterns = torch.tensor(list(itertools.product((-size, size), repeat=width))).double()
    binary = half_third(patterns).var(dim=0, correction=0).sum()
    expected = {
        "binary": size**4 * float(everything - diagonal) / 2,
        "gaussian": size**4 * float(everything) / 2,
    }
    assert float(binary) == pytest.approx(expected["binary"], rel=1e-12)
    draws = 40_000
    for law, value in expected.items():
        unit = Noise(law=law, scale="none")
        generator = torch.Generator().manual_seed(1)
        drawn = size * unit.units([torch.empty(draws, width).double()], generator)[0]
        terms = half_third(drawn)
        spread = (terms - terms.mean(0)).square().sum(dim=1)
        error = float(spread.std()) / draws**0.5
        assert float(spread.mean()) == pytest.approx(value, abs=5 * error)
    assert expected["binary"] < 0.9 * expected["gaussian"]


# No noise


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_scale": 0.0, "pairs": 3},
        {"noise_scale": 0.0, "noise_per": "sample"},
        {"noise_scale": 0.0, "noise_per": "layer", "minibatch": "halves"},
        {"noise_stop": 0.0},
        {"noise_start": 1.0, "bn_stats": "both"},
        {"noise_scale": 0.0, "bn_stats": "clean"},
    ],
)
def test_without_noise_a_step_is_sgds_to_the_bit_and_at_its_cost(settings):
    model, plain = network(), network()
    method = make_method("s-sgd", model, **settings)
    assert run_steps(method, 4) == run_steps(make_method("sgd", plain), 4)
    assert bits(model) == bits(plain)
    assert method.passes.gradients == 4
    assert method.passes_per_step(method.settings) == 1


def test_outside_its_span_a_run_costs_sgds_passes():
    method = make_method("s-sgd", network(), noise_start=0.2, noise_stop=0.8, pairs=2)
    costs = []
    for number in range(10):
        before = method.passes.gradients
        method.step(minibatch(number), When(step=number, fraction_done=number / 10))
        costs.append(method.passes.gradients - before)
    assert costs == [1, 1, 4, 4, 4, 4, 4, 4, 1, 1]
    assert method.passes_per_step(method.settings) == pytest.approx(sum(costs) / 10)


# Parts of the minibatch


@pytest.mark.parametrize(("pairs", "size"), [(1, 7), (2, 11), (3, 6), (2, 5)])
def test_all_examples_weigh_the_same_whatever_the_parts(pairs, size):
    model = network()
    settings = {"minibatch": "halves", "pairs": pairs}
    method = make_method("s-sgd", model, Still(model.parameters()), batch_size=size, **settings)
    method.gradient(minibatch(0, size), START)
    weights = [p.detach() for p in model.parameters()]
    step = Step(method.settings, seed=0, number=0, elapsed=0.0)
    expected = s_sgd(weights, *minibatch(0, size), step)
    for parameter, slope in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-12, atol=1e-14)
    assert method.passes.gradients == 1
    # with hardly any noise it is the plain mean over examples, to the noise's second order
    tiny = make_method("s-sgd", model, Still(model.parameters()), noise_scale=1e-9, **settings)
    plain = network()
    make_method("sgd", plain).gradient(minibatch(0, size), START)
    model.zero_grad()
    tiny.gradient(minibatch(0, size), START)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-8)


def test_more_points_than_examples_are_refused():
    method = make_method("s-sgd", network(), minibatch="halves", pairs=3)
    with pytest.raises(InputError, match="at least 6"):
        method.step(minibatch(0, 5), START)


# Layers, ranks, memory


def test_one_layer_is_moved_at_a_time_and_all_get_their_turn():
    model = network()
    clean = [p.detach().clone() for p in model.parameters()]
    seen = []
    model.register_forward_pre_hook(
        lambda *_: seen.append(
            tuple(not torch.equal(p, c) for p, c in zip(model.parameters(), clean, strict=True))
        )
    )
    method = make_method(
        "s-sgd", model, Still(model.parameters()), noise_per="layer", exclude="none"
    )
    run_steps(method, 40)
    assert seen[::2] == seen[1::2]  # both signs in one layer
    first, second = (True, True, False, False), (False, False, True, True)
    assert set(seen) == {first, second}
    # 40 fair draws: outside 8…32 once in ten thousand
    assert 8 <= seen[::2].count(first) <= 32


def test_ranks_draw_the_same_noise_unless_they_are_to_differ():
    def seed(rank: int, ranks: str) -> int:
        method = make_method("s-sgd", network(), noise_across_ranks=ranks)
        method.passes.ranks = type("Rank", (), {"rank": rank, "size": 2})()
        return method.seed_of(3, 0)

    assert seed(0, "same") == seed(1, "same") == seed(0, "different") != seed(1, "different")


@pytest.mark.parametrize("law", LAWS)
def test_points_are_symmetric_about_the_weights(law):
    model = network().float()
    clean = [p.detach().double() for p in model.parameters()]
    seen = []
    model.register_forward_pre_hook(
        lambda *_: seen.append([p.detach().double() for p in model.parameters()])
    )
    method = make_method("s-sgd", model, Still(model.parameters()), noise_law=law, pairs=2)
    run_steps(method, 1)
    for plus, minus in (seen[:2], seen[2:]):
        for a, b, w in zip(plus, minus, clean, strict=True):
            # one rounding to float32 of a number of the weights' size
            torch.testing.assert_close(a + b, 2 * w, rtol=0, atol=float(w.abs().max()) * 2**-22)
    assert not torch.equal(seen[0][0], seen[2][0])


def test_the_memory_order_of_the_weights_stays():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    plain.load_state_dict(model.state_dict())
    model.to(memory_format=torch.channels_last)
    inputs, targets = torch.randn(6, 3, 4, 4), minibatch(0)[1]
    for each in (model, plain):
        method = make_method("s-sgd", each)
        for number in range(2):
            method.step((inputs, targets), When(step=number))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)  # float32, another kernel
