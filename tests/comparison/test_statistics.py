"""Intervals and tests against scipy, closed forms and a simulation of their coverage."""

import numpy as np
import pytest
from scipy import stats

from ssgd_analysis.comparison.statistics import (
    holm,
    interval,
    paired_difference,
    unpaired_difference,
)

A, B = [3.1, 2.7, 3.9, 3.3], [2.9, 2.2, 3.1, 3.4]


def test_interval_is_students():
    found = interval(A)
    low, high = stats.t.interval(0.95, 3, np.mean(A), stats.sem(A))
    assert found.ci95 == pytest.approx((low, high))
    assert (found.mean, found.n) == (pytest.approx(3.25), 4)


def test_one_value_carries_no_interval():
    assert interval([2.0]).ci95 is None
    assert paired_difference([2.0], [1.0]).p is None
    assert unpaired_difference([2.0], [1.0, 3.0]).p is None


def test_paired_matches_scipy_and_unpaired_its_test():
    paired = paired_difference(A, B)
    assert paired.p == pytest.approx(stats.ttest_rel(A, B).pvalue)
    assert paired.mean == pytest.approx(np.mean(A) - np.mean(B))
    welch = unpaired_difference(A, B[:3])
    plain = stats.ttest_ind(A, B[:3], equal_var=False)
    # its p at the worst ratio of spreads is above Welch's own, whose level is too high
    assert plain.pvalue < welch.p < 1.3 * plain.pvalue
    assert welch.n == 3
    mean = np.mean(A) - np.mean(B[:3])
    assert welch.mean == pytest.approx(mean)
    low, high = welch.ci95
    assert low + high == pytest.approx(2 * mean)
    own = plain.confidence_interval(0.95)
    assert low < own.low
    assert high > own.high


@pytest.mark.parametrize(("n", "m"), [(3, 4), (2, 9)])
def test_the_unpaired_interval_leaves_out_zero_where_p_is_below_its_level(n, m):
    rng = np.random.default_rng([n, m])
    a, b = rng.normal(0, 2, n), rng.normal(0, 1, m)
    low, high = unpaired_difference(a, b).ci95
    for end, inward in ((low, 1), (high, -1)):
        step = 1e-6 * (high - low)
        assert unpaired_difference(a - end, b).p == pytest.approx(0.05, rel=1e-5)
        assert unpaired_difference(a - end - inward * step, b).p > 0.05


def test_equal_differences_are_no_crash():
    assert paired_difference([1, 2, 3], [1, 2, 3]).p == 1.0
    same = paired_difference([0.964, 0.952], [0.962, 0.950])
    assert (same.p, same.ci95) == (None, None)  # no spread is no evidence, not infinite evidence
    assert unpaired_difference([1, 1], [1, 1]).p == 1.0


def test_holm_by_hand():
    # sorted 0.01·4, 0.02·3, 0.03·2, 0.04·1, then made monotone
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]


def test_coverage_of_the_paired_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        differences = rng.normal(0.5, 1.0, 5)
        low, high = paired_difference(differences, np.zeros(5)).ci95
        inside += low <= 0.5 <= high
    # 95% ± 3 binomial standard deviations of 1000 draws
    assert 0.929 <= inside / 1000 <= 0.971
