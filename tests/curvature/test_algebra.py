"""Sums and multiples of operators, dense matrices and scipy's, vectors that do not fit, seeds."""

import nets
import numpy as np
import pytest
import reference
import torch
from torch import nn

from ssgd_analysis import seeds
from ssgd_analysis.curvature import (
    OPERATORS,
    DenseOperator,
    GGNOperator,
    HessianOperator,
    MonteCarloFisherOperator,
    Options,
    ScaledOperator,
    block_eigenpairs,
    cross_fit,
    diagonal,
    eigenpairs,
    layer_traces,
    spectral_density,
    survey,
    trace,
)
from ssgd_analysis.curvature.survey import more_squares
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem


def case() -> nets.Case:
    with nets.seeded():
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return nets.Case(model, nets.cross_entropy, nets.randn(nets.N, 3), nets.labels(classes=2))


def close(found, truth):
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)


def planted(size: int = 6, seed: int = 0) -> torch.Tensor:
    matrix = nets.randn(size, size, seed=seed)
    return matrix + matrix.T


@pytest.fixture
def both() -> tuple[HessianOperator, GGNOperator]:
    problem = Problem(*case().problem)
    return HessianOperator(problem), GGNOperator(problem)


EXPRESSIONS = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "multiple": lambda a, b: 2 * a,
    "multiple from the right": lambda a, b: b * -0.5,
    "numpy's scalar": lambda a, b: np.float64(2) * a,
    "torch's scalar": lambda a, b: a * torch.tensor(3.0),
    "negative": lambda a, b: -a,
    "mixed": lambda a, b: (a + 2 * b) * 0.5 - a + a,
    "transposed": lambda a, b: (a + b).T,
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_are_those_of_the_matrices(both, name):
    make = EXPRESSIONS[name]
    hessian, ggn = reference.hessian(case()), reference.ggn(case())
    truth = torch.as_tensor(make(hessian, ggn))
    found = make(*both)
    close(found.to_dense(), truth)
    vector = nets.randn(len(truth))
    close(found @ vector, truth @ vector)
    assert found.to_scipy().shape == truth.shape
    close(torch.as_tensor(found.to_scipy() @ vector.numpy()), truth @ vector)
    close(make(DenseOperator(hessian), DenseOperator(ggn)).to_dense(), truth)


def test_the_transpose_is_the_operator(both):
    assert both[0].T is both[0]


def test_a_sum_over_the_same_batches_has_their_parts(both):
    found = both[0] + 0.5 * both[1]
    block = nets.randn(found.shape[0], 2)
    whole = list(found.parts(block))
    assert [share for share, _ in whole] == both[0].problem.shares
    for (_, part), (x, y) in zip(whole, case().batches(), strict=True):
        single = nets.Case(both[0].problem.model, nets.cross_entropy, x, y)
        close(part, (reference.hessian(single) + 0.5 * reference.ggn(single)) @ block)
    twice = trace(both[0] + both[0], probes=4, seed=0)
    once = trace(both[0], probes=4, seed=0)
    assert twice.sampling_stderr == pytest.approx(2 * once.sampling_stderr, rel=1e-9)
    pairs = eigenpairs(both[0] + both[0], 1, tol=1e-8).largest
    single = eigenpairs(both[0], 1, tol=1e-8).largest
    assert pairs[0].stderr == pytest.approx(2 * single[0].stderr, rel=1e-6)


@pytest.mark.parametrize("first", ["graph", "linear"])
def test_a_summand_that_moves_the_weights_spoils_nothing_of_the_other(first):
    problem = Problem(*case().problem)
    found = HessianOperator(problem, options=Options(strategy=first)) + GGNOperator(
        problem, options=Options(strategy="difference")
    )
    truth = reference.hessian(case()) + reference.ggn(case())
    for _ in range(2):  # the second product meets what the first one left
        torch.testing.assert_close(found.to_dense(), truth, rtol=1e-5, atol=1e-6)


def test_problems_of_their_own_over_the_same_batches_count_as_the_same():
    model = case().model
    batches = case().batches()
    problems = [Problem(model, nets.cross_entropy, batches) for _ in range(2)]
    found = HessianOperator(problems[0]) + GGNOperator(problems[1])
    assert trace(found, probes=4).sampling_stderr is not None


def test_a_sum_over_other_batches_has_no_error_over_examples(both):
    other = HessianOperator(Problem(case().model, nets.cross_entropy, case().batches(5)))
    dense = DenseOperator(reference.hessian(case()))
    half = both[0].halves()[0]
    for second in (other, dense, half, ScaledOperator(other, nets.randn(other.shape[0]))):
        found = both[0] + second
        assert found.sample is None
        assert len(list(found.parts(nets.randn(found.shape[0], 1)))) == 1
        assert trace(found, probes=4).sampling_stderr is None
        assert eigenpairs(found, 1).largest[0].stderr is None
        close(found.to_dense(), both[0].to_dense() + second.to_dense())


def test_halves_and_scaled_operators_keep_their_sample(both):
    (a, b), (c, _) = both[0].halves(), both[1].halves()
    assert (a + c).sample == a.sample != b.sample
    scale = nets.randn(both[0].shape[0])
    assert (ScaledOperator(both[0], scale) + both[1]).sample == both[0].sample


def test_estimates_take_sums_of_planted_matrices():
    one, other = planted(12), planted(12, seed=1)
    found = DenseOperator(one) - 0.3 * DenseOperator(other)
    truth = torch.linalg.eigvalsh(one - 0.3 * other)
    spectrum = eigenpairs(found, 2, tol=1e-10)
    assert spectrum.largest[0].value == pytest.approx(float(truth[-1]), rel=1e-9)
    assert spectrum.smallest.value == pytest.approx(float(truth[0]), rel=1e-9)
    exact = trace(found, probes=12, method="xtrace")
    assert exact.value == pytest.approx(float(truth.sum()), rel=1e-9)
    assert survey(found, 2, probes=4, density_steps=5).density.probes == 4


def test_products_are_counted_by_sum_and_summands():
    one, other = DenseOperator(planted()), DenseOperator(planted(seed=1))
    found = one + 2 * other
    _ = found @ nets.randn(6, 3)
    assert (found.products, one.products, other.products) == (3, 3, 3)


def test_operators_that_do_not_fit_are_refused():
    one = DenseOperator(planted())
    for other in (DenseOperator(planted(5)), DenseOperator(planted().float())):
        with pytest.raises(InputError, match="should have the same shape"):
            _ = one + other
    with pytest.raises(InputError, match="should be finite"):
        _ = float("inf") * one
    with pytest.raises(InputError, match="should be square"):
        DenseOperator(nets.randn(2, 3))
    for wrong in (lambda: one + 1.0, lambda: one * one, lambda: one @ one, lambda: one * "2"):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        _ = one * torch.ones(6)


@pytest.mark.parametrize("name", [*OPERATORS, "dense", "sum"])
def test_vectors_of_another_dtype_are_refused_with_the_remedy(name):
    problem = Problem(*case().problem)
    if name == "dense":
        operator = DenseOperator(planted())
    elif name == "sum":
        operator = HessianOperator(problem) + GGNOperator(problem)
    else:
        operator = OPERATORS[name](problem)
    vector = torch.ones(operator.shape[0])
    with pytest.raises(InputError, match="vectors are float32 on cpu, the operator float64"):
        _ = operator @ vector
    assert operator.products == 0
    assert (operator @ vector.to(operator.device, operator.dtype)).dtype == torch.float64


def test_an_operator_takes_a_problem():
    model = case().model
    for kind in OPERATORS.values():
        with pytest.raises(InputError, match=r"takes a Problem, not a Sequential: Problem\(model"):
            kind(model)
        with pytest.raises(TypeError):
            kind(*case().problem)
    with pytest.raises(InputError, match="draws 0"):
        MonteCarloFisherOperator(Problem(*case().problem), draws=0)


def test_operators_say_in_a_line_what_they_are(both):
    assert repr(both[0]) == "HessianOperator(20 × 20, float64 on cpu, N=11 in 3 batches)"
    assert repr(both[0] + both[1]) == "SumOperator(20 × 20, float64 on cpu)"


ESTIMATES = {
    "eigenpairs": ("lambda_max", lambda H, **how: eigenpairs(H, 1, tol=1e-1, **how).vectors),
    "block_eigenpairs": (
        "lambda_max",
        lambda H, **how: block_eigenpairs(H, [slice(0, 9)], 1, tol=1e-1, **how)[0].vectors,
    ),
    "cross_fit": (
        "cross_fit",
        lambda H, **how: cross_fit(H, H, None, 1, tol=1e-1, **how).values,
    ),
    "trace": ("trace", lambda H, **how: trace(H, probes=4, **how).value),
    "spectral_density": ("density", lambda H, **how: spectral_density(H, steps=3, **how).density),
    "diagonal": ("diagonal", lambda H, **how: diagonal(H, probes=4, **how).values),
    "layer_traces": (
        "layer traces",
        lambda H, **how: layer_traces(H, [slice(0, 9)], probes=4, **how)[0].value,
    ),
    "more_squares": (
        "squares",
        lambda H, **how: more_squares(H, survey(H, 1, probes=4, density_steps=3), 2, **how),
    ),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_seed_stands_for_a_named_stream(name):
    stream, measure = ESTIMATES[name]
    operator = DenseOperator(planted(30))

    def equal(one, other) -> bool:
        return np.array_equal(np.asarray(one), np.asarray(other))

    found = measure(operator, seed=3)
    assert equal(found, measure(operator, seed=3))
    assert equal(found, measure(operator, generator=seeds.generator(3, stream)))
    assert equal(measure(operator), measure(operator, seed=0))
    assert not equal(found, measure(operator, seed=4))
    with pytest.raises(InputError, match="a seed or a generator, not both"):
        measure(operator, seed=0, generator=nets.generator())


def test_a_search_by_a_seed_is_the_survey_s():
    operator = DenseOperator(planted(30))
    found = eigenpairs(operator, 2, seed=5)
    assert torch.equal(found.vectors, survey(operator, 2, seed=5).spectrum.vectors)
