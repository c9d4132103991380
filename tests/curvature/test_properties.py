"""Laws that every operator keeps on any small network, found by random search."""

import itertools

import nets
import pytest
import reference
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ssgd_analysis.curvature import (
    OPERATORS,
    DenseOperator,
    HessianOperator,
    Options,
    eigenpairs,
    trace,
)
from ssgd_analysis.problem import Problem

# how many examples: conftest.py
few = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "none": nn.Identity}
operators = st.sampled_from(["hessian", "ggn", "fisher", "covariance"])


@st.composite
def cases(draw) -> nets.Case:
    """A random MLP, its loss and its examples."""
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    activation = ACTIVATIONS[draw(st.sampled_from(list(ACTIVATIONS)))]
    count, seed = draw(st.integers(1, 9)), draw(st.integers(0, 1000))
    layers: list[nn.Module] = []
    with nets.seeded(seed):
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=draw(st.booleans())), activation()]
    model = nn.Sequential(*layers[:-1]).double()
    x = nets.randn(count, widths[0], seed=seed)
    if draw(st.booleans()):
        return nets.Case(model, nets.mse, x, nets.randn(count, widths[-1], seed=seed + 1))
    return nets.Case(model, nets.cross_entropy, x, nets.labels(count, widths[-1], seed))


sizes = st.integers(1, 9)


def made(case: nets.Case, name: str, size: int, **options):
    return OPERATORS[name](
        Problem(case.model, case.loss, case.batches(size)), options=Options(**options)
    )


def close(
    found: torch.Tensor, truth: torch.Tensor, rtol: float = 1e-9, floor: float = 1e-5
) -> None:
    scale = max(float(truth.abs().max()), floor)  # below, terms that cancel are all rounding
    torch.testing.assert_close(found, truth, rtol=rtol, atol=rtol * scale)


@few
@given(cases(), operators, sizes)
def test_the_dense_matrix_symmetric_and_linear(case, name, size):
    operator = made(case, name, size)
    n = operator.shape[0]
    u, v = nets.randn(n, 2, seed=3).T
    hu, hv = operator @ u, operator @ v
    close(u @ hv, v @ hu)
    close(operator @ (2 * u - 3 * v), 2 * hu - 3 * hv)
    close(operator @ torch.stack([u, v], dim=1), torch.stack([hu, hv], dim=1))
    close(hu, reference.OPERATORS[name](case) @ u)


@few
@given(cases(), operators, sizes, sizes)
def test_cutting_changes_nothing(case, name, size, micro_batch):
    vectors = nets.randn(len(reference.flat_weights(case.model)), 2)
    whole = made(case, name, len(case.inputs)) @ vectors
    close(made(case, name, size) @ vectors, whole)
    close(made(case, name, size, micro_batch=micro_batch) @ vectors, whole)
    close(made(case, name, size, memory=1) @ vectors, whole)


@settings(few, max_examples=8)
@given(cases(), operators, sizes)
def test_ways_agree(case, name, size):
    vectors = nets.randn(len(reference.flat_weights(case.model)), 2)
    graph = made(case, name, size, strategy="graph") @ vectors
    close(made(case, name, size, strategy="linear") @ vectors, graph)
    if not any(isinstance(module, nn.ReLU) for module in case.model):  # a step may cross a kink
        close(made(case, name, size, strategy="difference") @ vectors, graph, rtol=1e-4, floor=1e-3)


@few
@given(cases(), sizes, st.integers(1, 4), st.sampled_from([1e-2, 1e-6]))
def test_an_eigenvalue_lies_within_the_residual(case, size, k, tol):
    operator = HessianOperator(Problem(case.model, case.loss, case.batches(size)))
    found = eigenpairs(operator, k, tol=tol, generator=nets.generator())
    truth = torch.linalg.eigvalsh(reference.hessian(case))
    rounding = 1e-13 * float(truth.abs().max()) + 1e-15
    for pair in [*found.largest, found.smallest]:
        gap = float((truth - pair.value).abs().min())
        assert gap <= pair.residual_norm * (1 + 1e-9) + rounding
    # and they are the right ones, not just some
    slack = tol * float(truth.abs().max()) + rounding
    for pair, value in zip(found.largest, truth.flip(0), strict=False):
        assert abs(pair.value - float(value)) <= 2 * slack


@few
@given(cases(), sizes)
def test_the_trace_lies_within_five_errors(case, size):
    operator = HessianOperator(Problem(case.model, case.loss, case.batches(size)))
    found = trace(operator, probes=64, generator=nets.generator())
    truth = float(reference.hessian(case).trace())
    # probes that all give the same leave an error of zero: then there is only rounding
    assert abs(found.value - truth) <= 5 * found.stderr + 1e-12 * (1 + abs(truth))


def test_the_trace_lies_within_five_errors_on_99_of_100_draws():
    matrix = reference.hessian(nets.mlp())
    operator, truth = DenseOperator(matrix), float(matrix.trace())
    draws = 300
    inside = sum(
        abs(found.value - truth) <= 5 * found.stderr
        for seed in range(draws)
        for found in [trace(operator, probes=16, generator=nets.generator(seed))]
    )
    assert inside >= 0.99 * draws


@few
@given(cases(), sizes)
def test_relatives_are_positive_semidefinite(case, size):
    for name in ("ggn", "fisher", "covariance"):
        operator = made(case, name, size)
        u = nets.randn(operator.shape[0])
        image = operator @ u
        assert float(u @ image) >= -1e-12 * (1 + float(u.norm() * image.norm()))
        assert pytest.approx(float(u @ image), abs=1e-9) == float(
            u @ reference.OPERATORS[name](case) @ u
        )
