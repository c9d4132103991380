"""What symmetric noise descends: the third derivative, exactly, and the gradients beside it."""

import nets
import pytest
import reference
import torch
from torch import nn

from ssgd_analysis.curvature.third_order import curvature_slope, symmetric_alignment
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem


def noises(case: nets.Case, scale: float, draws: int = 4) -> list[list[torch.Tensor]]:
    problem = Problem(*case.problem)
    size = problem.n_parameters
    return [problem.split(scale * nets.randn(size, seed=seed).sign()) for seed in range(draws)]


@pytest.mark.parametrize("name", nets.CASES)
def test_the_slope_of_the_curvature_equals_the_literal_reading(name):
    case = nets.with_state(nets.CASES[name]())
    before = nets.state(case.model)
    n = nets.randn(len(reference.flat_weights(case.model)), seed=5)
    problem = Problem(*case.problem)
    found = curvature_slope(problem, problem.split(n))
    truth = reference.curvature_slope(case, n)
    # differences of Hessians: step⁴ of the seventh derivative, and rounding / step
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))
    assert nets.state(case.model) == before


class WeightNormalised(nn.Module):
    """A linear layer v·g/‖v‖, with torch's kernel or written out."""

    def __init__(self, dim, written_out):
        super().__init__()
        self.dim, self.written_out = dim, written_out
        axes = [axis for axis in (0, 1) if axis != dim]
        self.v = nn.Parameter(nets.randn(3, 4))
        self.g = nn.Parameter(self.v.detach().norm(dim=axes, keepdim=True) + 0.5)

    def forward(self, x):
        if self.written_out:
            squares = self.v.square()
            total = squares.sum() if self.dim < 0 else squares.sum(1 - self.dim, keepdim=True)
            return x @ (self.v * self.g / total.sqrt()).T
        return x @ torch._weight_norm(self.v, self.g, self.dim).T


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_normalisation_is_right_where_torch_is_not(dim):
    found = []
    for written_out in (True, False):
        model = WeightNormalised(dim, written_out)
        case = nets.Case(model, nets.cross_entropy, nets.randn(nets.N, 4), nets.labels())
        problem = Problem(*case.problem)
        n = nets.randn(problem.n_parameters, seed=5)
        found.append(curvature_slope(problem, problem.split(n)))
        if written_out:
            torch.testing.assert_close(found[0], reference.curvature_slope(case, n))
    torch.testing.assert_close(*found)


def test_a_short_last_batch_counts_by_its_examples():
    case = nets.mlp()
    n = nets.randn(len(reference.flat_weights(case.model)), seed=5)
    slopes = []
    for size in (nets.BATCH, nets.N):
        problem = Problem(case.model, case.loss, case.batches(size))
        slopes.append(curvature_slope(problem, problem.split(n)))
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("name", ["mlp", "conv_batchnorm", "tied"])
def test_small_noise_follows_the_third_derivative(name):
    """The rest is of fourth order: ten times less noise, a hundred times less of it."""
    case = nets.CASES[name]()
    off = []
    for scale in (1e-2, 1e-3):
        found = symmetric_alignment(Problem(*case.problem), noises(case, scale))
        values = [e.value for e in (found.cosine, found.ratio, found.trace_cosine)]
        off.append(max(abs(1 - value) for value in values))
        assert found.trace_ratio.value == pytest.approx(1, abs=0.1)
        assert found.ratio.stderr < 0.05
        assert found.share > 0
        assert -1 <= found.agreement <= 1
    assert off[0] < 0.05
    assert off[1] < 1e-3


def test_large_noise_leaves_the_third_derivative():
    case = nets.mlp()
    found = symmetric_alignment(Problem(*case.problem), noises(case, 0.5))
    assert abs(1 - found.ratio.value) > 0.1


def test_kinks_are_part_of_the_surplus_and_not_of_the_derivative():
    """docs/tracking.md: on a ReLU network the expansion fails, on a smooth one it holds."""
    inputs, targets = nets.randn(200, 8), nets.labels(200)
    for activation, follows in ((nn.GELU(), True), (nn.ReLU(), False)):
        with nets.seeded():
            model = nn.Sequential(nn.Linear(8, 64), activation, nn.Linear(64, 3)).double()
        case = nets.Case(model, nets.cross_entropy, inputs, targets)
        found = symmetric_alignment(Problem(*case.problem), noises(case, 1e-3))
        if follows:
            assert found.ratio.value == pytest.approx(1, abs=1e-2)
        else:
            assert found.ratio.value > 10


def test_it_is_the_measured_surplus_beside_the_literal_slope():
    case, scale = nets.mlp(), 0.1
    draws = noises(case, scale, draws=2)
    w, g = reference.flat_weights(case.model), reference.gradient(case)
    surplus, slope = [], []
    for draw in draws:
        n = torch.cat([part.reshape(-1) for part in draw])
        ahead, behind = reference.gradient(case, w + n), reference.gradient(case, w - n)
        surplus.append((ahead + behind) / 2 - g)
        slope.append(reference.curvature_slope(case, n))
    found = symmetric_alignment(Problem(*case.problem), draws)
    cosines = [torch.cosine_similarity(s, t, dim=0) for s, t in zip(surplus, slope, strict=True)]
    ratios = [s.norm() / t.norm() for s, t in zip(surplus, slope, strict=True)]
    means = [sum(part) / 2 for part in (surplus, slope)]
    expected = {
        "cosine": sum(cosines) / 2,
        "ratio": sum(ratios) / 2,
        "trace_cosine": torch.cosine_similarity(*means, dim=0),
        "trace_ratio": means[0].norm() / means[1].norm(),
    }
    for name, value in expected.items():
        assert getattr(found, name).value == pytest.approx(float(value), rel=1e-6), name
    assert found.cosine.stderr == pytest.approx(abs(float(cosines[0] - cosines[1])) / 2, rel=1e-4)
    assert found.agreement == pytest.approx(float(torch.cosine_similarity(*slope, dim=0)), rel=1e-5)
    assert found.share == pytest.approx(float(means[1].norm() / g.norm()), rel=1e-6)
    assert found.draws == 2


def test_many_draws_average_to_the_slope_of_the_trace():
    """Binary noise of one size: Σ = c² I, so the mean is c²/2 ∇Tr H."""
    case, scale = nets.regression(), 0.01
    problem = Problem(*case.problem)
    draws = noises(case, scale, draws=400)
    mean = sum(curvature_slope(problem, n) for n in draws) / len(draws)
    basis = torch.eye(problem.n_parameters, dtype=torch.float64)
    truth = scale**2 * sum(reference.curvature_slope(case, e) for e in basis)
    assert torch.cosine_similarity(mean, truth, dim=0) > 0.95
    assert mean.norm() / truth.norm() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 10.0])
def test_a_quadratic_has_neither(scale):
    case = nets.quadratic()
    found = symmetric_alignment(Problem(*case.problem), noises(case, scale))
    for estimate in (found.cosine, found.ratio, found.trace_cosine, found.trace_ratio):
        assert (estimate.value, estimate.stderr) == (None, None)
    assert (found.agreement, found.share) == (None, None)


@pytest.mark.parametrize("scale", [0.0, 1e-9])
def test_noise_below_the_rounding_says_nothing(scale):
    case = nets.mlp()
    found = symmetric_alignment(Problem(*case.problem), noises(case, scale))
    assert found.cosine.value is None
    assert found.trace_ratio.value is None


def test_the_model_comes_back_as_it_was():
    case = nets.with_state(nets.conv_batchnorm())
    before = nets.state(case.model)
    symmetric_alignment(Problem(*case.problem), noises(case, 0.1))
    assert nets.state(case.model) == before


class Once(torch.autograd.Function):
    """Has one derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient / ctx.saved_tensors[0].cosh().square()


class OnceDifferentiable(nn.Module):
    def forward(self, x):
        return Once.apply(x)


@pytest.mark.parametrize("layer", [nn.InstanceNorm1d(2), OnceDifferentiable()])
def test_an_operation_without_a_third_derivative_is_named(layer):
    """torch would take the part of a custom function that is differentiable once for zero."""
    with nets.seeded():
        model = nn.Sequential(nn.Conv1d(1, 2, 3), layer, nn.Flatten()).double()
    problem = Problem(model, nets.cross_entropy, [(nets.randn(5, 1, 4), nets.labels(5))])
    with pytest.raises(InputError, match="no third derivative"):
        curvature_slope(problem, [p.detach() for p in problem.parameters.values()])
