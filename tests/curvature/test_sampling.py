import numpy as np
import pytest

from ssgd_analysis.curvature.sampling import weighted_stderr


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
