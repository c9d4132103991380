import numpy as np
import pytest
import torch
from planted import MeanOperator, planted

from ssgd_analysis.curvature.operators.sampling import Quotients, quotients, weighted_stderr


def test_equal_shares_give_the_usual_error():
    values = np.random.default_rng(0).normal(size=(10, 3))
    usual = values.std(axis=0, ddof=1) / 10**0.5
    np.testing.assert_allclose(weighted_stderr(np.full(10, 0.1), values), usual, rtol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_one_batch_has_no_error(count):
    assert weighted_stderr(np.ones(count), np.ones(count)) is None


def test_unbiased_for_unequal_batches():
    sizes = np.array([8, 8, 8, 8, 1])
    shares = sizes / sizes.sum()
    draws = np.random.default_rng(0).normal(size=(20_000, 5)) / sizes**0.5
    found = np.array([weighted_stderr(shares, row) for row in draws]) ** 2
    # the mean of N examples of variance one; 20,000 variances of 4 degrees know it to 0.5%
    assert found.mean() == pytest.approx(1 / sizes.sum(), rel=0.02)


def test_quotients_of_a_block_by_place():
    matrices = [torch.block_diag(planted([3, 1], s), planted([5, 2, 0], s)) for s in range(3)]
    operator = MeanOperator(matrices, [0.5, 0.3, 0.2])
    block = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    places = [slice(0, 2), slice(2, 5)]
    image, found = quotients(operator, block, places)
    torch.testing.assert_close(image, operator.dense() @ block)
    assert operator.products == 2
    for place, own in zip(places, found, strict=True):
        own_block = block[place]
        truth = [(own_block * (m[place, place] @ own_block)).sum(dim=0) for m in matrices]
        np.testing.assert_allclose(own.values, torch.stack(truth), rtol=1e-12)
        np.testing.assert_allclose(own.mean(), [0.5, 0.3, 0.2] @ own.values)
        np.testing.assert_allclose(own.stderr(), weighted_stderr(own.shares, own.values))


def test_columns_of_quotients():
    own = Quotients(np.array([0.5, 0.5]), np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(own[[2, 0]].values, [[2, 0], [5, 3]])
    np.testing.assert_array_equal(own[[2, 0]].shares, own.shares)
