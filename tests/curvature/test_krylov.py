import math

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import planted
from torch import Tensor

from ssgd_analysis.curvature.eigen.krylov import KrylovBasis, orthonormal
from ssgd_analysis.errors import WorkError

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
EPS = {torch.float32: 1.2e-7, torch.float64: 2.3e-16}


def new_basis(matrix: Tensor, size: int) -> KrylovBasis:
    return KrylovBasis(len(matrix), size, dtype=matrix.dtype, device=matrix.device)


def assert_relation(basis: KrylovBasis, matrix: Tensor) -> None:
    """[Q, W] is orthonormal, H Q = Q T + W B, and T = QᵀHQ."""
    held, pending = basis.vectors[: basis.count].double(), basis.pending.double()
    projected = torch.as_tensor(basis.projected[: basis.count, : basis.count])
    coupling = torch.as_tensor(basis.coupling[:, : basis.count])
    error = 100 * EPS[matrix.dtype]
    scale = max(float(torch.linalg.matrix_norm(matrix.double(), 2)), 1e-300)
    both = torch.cat([held, pending])
    assert float((both @ both.T - torch.eye(len(both))).abs().max()) <= error
    image = matrix.double() @ held.T
    assert float((image - held.T @ projected - pending.T @ coupling).abs().max()) <= error * scale
    assert float((held @ image - projected).abs().max()) <= error * scale


ACTIONS = st.lists(st.sampled_from(["tail", "fresh", "worst", "restart"]), min_size=1, max_size=40)


@given(
    actions=ACTIONS,
    seed=st.integers(0, 1000),
    block=st.integers(1, 5),
    rank=st.integers(0, 25),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@PROPERTY
def test_relation_holds_whatever_is_done(actions, seed, block, rank, dtype):
    values = np.zeros(25)
    values[:rank] = np.random.default_rng(seed).normal(size=rank)
    matrix, stream = planted(values, seed, dtype), nets.generator(seed)
    basis = new_basis(matrix, 25)
    start = orthonormal(torch.randn(25, block, generator=stream, dtype=dtype))
    for vector in start.T:
        basis.take(vector, matrix @ vector)
    for action in actions:
        _, residuals, coordinates = basis.ritz()
        if action == "restart":
            basis.restart(coordinates[:, : max(1, basis.count // 2)])
            continue
        if basis.count == 25:
            break
        vector = None
        if action == "tail":
            vector = basis.tail()
        if action == "worst":
            vector = basis.residual(coordinates[:, residuals.argmax()])
        if vector is None:
            vector = basis.fresh(stream)
        basis.take(vector, matrix @ vector)
    assert_relation(basis, matrix)


def test_residuals_are_those_of_the_ritz_vectors():
    matrix = planted(np.linspace(-1, 2, 30))
    basis = new_basis(matrix, 10)
    for vector in orthonormal(nets.randn(30, 4)).T:
        basis.take(vector, matrix @ vector)
    values, residuals, coordinates = basis.ritz()
    vectors = basis.combine(coordinates)
    truth = (matrix @ vectors - vectors * torch.as_tensor(values)).norm(dim=0)
    np.testing.assert_allclose(residuals, truth, rtol=1e-10)
    direction = basis.residual(coordinates[:, -1])
    residual = matrix @ vectors[:, -1] - vectors[:, -1] * values[-1]
    assert float(direction @ residual) == pytest.approx(residuals[-1], rel=1e-10)


def test_nothing_is_pending_in_an_invariant_subspace():
    matrix = planted([3, 2, 0, 0, 0, 0])
    _, vectors = torch.linalg.eigh(matrix)
    basis = new_basis(matrix, 6)
    for vector in vectors[:, -2:].T:
        basis.take(vector, matrix @ vector)
    assert len(basis.pending) == 0
    assert basis.tail() is None
    assert basis.beta() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_image_that_is_not_finite_is_an_error(value):
    basis = new_basis(planted([1, 2]), 2)
    with pytest.raises(WorkError, match="not finite"):
        basis.take(torch.tensor([1.0, 0.0]).double(), torch.tensor([value, 0.0]).double())


@pytest.mark.parametrize(
    ("columns", "rank"),
    [
        ([[0, 0, 0]], 0),
        ([[math.nan, 1, 0], [1, 1, 0]], 1),
        ([[1, 1, 0], [2, 2, 0], [0, 1e-30, 0]], 2),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]], 3),
    ],
)
def test_orthonormal_leaves_out_what_adds_nothing(columns, rank):
    found = orthonormal(torch.tensor(columns, dtype=torch.float64).T)
    assert found.shape == (3, rank)
    torch.testing.assert_close(found.T @ found, torch.eye(rank, dtype=torch.float64))
