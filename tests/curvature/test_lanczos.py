import nets
import numpy as np
import pytest
import torch
from planted import planted
from torch import Tensor

from ssgd_analysis.curvature.eigen.krylov import KrylovBasis
from ssgd_analysis.curvature.eigen.lanczos import Goal, Search, lockstep


def search(matrix: Tensor, seed: int = 0, size: int = 60, **options) -> Search:
    basis = KrylovBasis(len(matrix), size, dtype=matrix.dtype, device=matrix.device)
    goal = Goal(k=2, tol=1e-6, **options)
    return Search(basis, goal, nets.generator(seed))


def test_a_search_is_driven_from_outside():
    matrix = planted([5, 4, *np.linspace(-1, 1, 50)])
    driven = search(matrix)
    run = driven.run()
    request, asked = next(run), 0
    while request is not None:
        assert request.shape == (52, 1)
        assert float(request.norm()) == pytest.approx(1)
        asked += 1
        try:
            request = run.send(matrix @ request)
        except StopIteration:
            request = None
    assert driven.spent == asked
    assert driven.stop == "residual"
    np.testing.assert_allclose(driven.values[driven.top], [5, 4], rtol=1e-6)


def test_lockstep_serves_all_and_drops_the_finished():
    matrices = [planted([3, *np.linspace(0, 1, n)], n) for n in (3, 20, 50)]
    searches = [search(matrix, smallest=False) for matrix in matrices]
    active = []

    def multiply(requests: dict[int, Tensor]) -> dict[int, Tensor]:
        active.append(len(requests))
        return {index: matrices[index] @ block for index, block in requests.items()}

    assert lockstep([one.run() for one in searches], multiply) == [None] * 3
    assert active == sorted(active, reverse=True)
    assert len(active) == max(one.spent for one in searches)
    assert sum(active) == sum(one.spent for one in searches)
    alone = search(matrices[1], smallest=False)
    lockstep([alone.run()], lambda requests: {0: matrices[1] @ requests[0]})
    np.testing.assert_array_equal(alone.values, searches[1].values)


def test_lockstep_returns_in_order():
    def count(steps: int):
        for _ in range(steps):
            yield torch.zeros(1, 1)
        return steps

    assert lockstep([count(3), count(0), count(1)], lambda requests: requests) == [3, 0, 1]
    assert lockstep([], dict) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_check_works_in_a_small_basis(dtype):
    values = [5] * 4 + [3] * 3 + list(np.linspace(-1, 1, 200))
    matrix = planted(values, dtype=dtype)
    basis = KrylovBasis(len(matrix), 30, dtype=dtype, device=matrix.device)
    small = Search(basis, Goal(k=7, tol=1e-5, smallest=False), nets.generator())
    lockstep([small.run()], lambda requests: {0: matrix @ requests[0]})
    np.testing.assert_allclose(small.values[small.top], values[:7], rtol=1e-5)
    assert small.check.complete


def test_a_check_that_does_not_fit_the_basis_is_given_up_and_said():
    # the neighbours crowd, so that a bound needs more steps than the basis holds
    values = [2.01, *np.linspace(-1, 2, 800)]
    matrix = torch.as_tensor(values).double()
    basis = KrylovBasis(len(values), 24, dtype=torch.float64, device=matrix.device)
    small = Search(basis, Goal(k=1, tol=1e-5, smallest=False), nets.generator())
    lockstep([small.run()], lambda requests: {0: matrix[:, None] * requests[0]})
    assert small.stop == "residual"
    assert not small.check.complete
    assert small.check.bound > 2.01 * 1.01
    assert small.spent < 1000
