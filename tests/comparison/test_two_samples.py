"""Tests of two means against their levels by simulation, and against known special cases."""

import numpy as np
import pytest
from scipy import stats

from ssgd_analysis.comparison.two_samples import (
    BehrensFisher,
    WorstWelch,
    two_sample_test,
    welch_dof,
    worst_welch_level,
)


def drawn(seed, n, m, ratio, draws=40_000):
    """T and share of normal groups of equal means, the first with ``ratio`` times the spread."""
    rng = np.random.default_rng(seed)
    a, b = ratio * rng.normal(size=(draws, n)), rng.normal(size=(draws, m))
    mine, other = a.var(axis=1, ddof=1) / n, b.var(axis=1, ddof=1) / m
    t = (a.mean(axis=1) - b.mean(axis=1)) / np.sqrt(mine + other)
    return t, mine / (mine + other)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 10), (3, 6), (10, 3)])
def test_welchs_worst_level_is_that_of_simulated_tests(n, m):
    """No ratio of spreads has more, and some ratio has as many, rejections by scipy's Welch."""
    level, rates = 0.05, []
    for ratio in (1 / 6, 1 / 3, 1 / 1.7, 1, 1.7, 3, 6, 12):
        t, share = drawn([n, m], n, m, ratio)
        rates.append(float((2 * stats.t.sf(np.abs(t), welch_dof(share, n, m)) < level).mean()))
    # four binomial standard deviations of 40,000 draws, and 2% for ratios between those tried
    error = 4 * (0.1 * 0.9 / 40_000) ** 0.5
    worst = worst_welch_level(level, n, m)
    assert max(rates) <= worst + error
    assert max(rates) >= 0.98 * worst - error


def test_welchs_dof_is_scipys():
    a, b = [3.1, 2.7, 3.9, 3.3], [2.9, 2.2, 3.4]
    mine, other = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    found = stats.ttest_ind(a, b, equal_var=False)
    assert welch_dof(mine / (mine + other), 4, 3) == pytest.approx(found.df)


@pytest.mark.parametrize(("n", "m", "share"), [(2, 10, 0.3), (3, 6, 0.8), (12, 4, 0.5)])
def test_behrens_and_fishers_p_is_that_of_two_students(n, m, share):
    rng = np.random.default_rng(n)
    draws = 1_000_000
    mixed = share**0.5 * rng.standard_t(n - 1, draws)
    mixed += (1 - share) ** 0.5 * rng.standard_t(m - 1, draws)
    for t in (0.7, 2.5, 8.0):
        beyond = float((np.abs(mixed) > t).mean())
        error = 4 * (beyond / draws) ** 0.5
        assert float(BehrensFisher(n, m).p(t, share)) == pytest.approx(beyond, abs=error)


def test_behrens_and_fishers_p_of_one_variance_alone_is_students():
    test = BehrensFisher(4, 9)
    for t in (1.0, 3.0):
        assert float(test.p(t, 1.0)) == pytest.approx(2 * stats.t.sf(t, 3), rel=1e-6)
        assert float(test.p(t, 0.0)) == pytest.approx(2 * stats.t.sf(t, 8), rel=1e-6)


@pytest.mark.parametrize("test", [BehrensFisher(2, 10), WorstWelch(4, 5), WorstWelch(2, 2)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 12])
def test_p_is_the_level_at_the_critical_t(test, level):
    shares = np.array([0.01, 0.4, 0.95])
    critical = test.critical(shares, level)
    assert test.p(critical, shares) == pytest.approx([level] * 3, rel=1e-4)
    assert (test.p(1.01 * critical, shares) < level).all()
    assert (test.p(0.99 * critical, shares) > level).all()


def test_p_is_for_either_sign_and_one_at_zero():
    for test in (BehrensFisher(3, 5), WorstWelch(3, 5)):
        assert float(test.p(-2.0, 0.3)) == float(test.p(2.0, 0.3))
        assert float(test.p(0.0, 0.3)) == pytest.approx(1.0)


@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
@pytest.mark.parametrize(("n", "m"), [(2, 10), (10, 2), (3, 6), (2, 3), (4, 4), (3, 10)])
def test_normal_groups_without_a_difference_are_rejected_no_more_than_the_level(n, m, level):
    for ratio in (1, 2, 6):
        t, share = drawn([n, m, ratio], n, m, ratio)
        test = two_sample_test(n, m, level)
        rate = float((np.abs(t) > critical(test, level, share)).mean())
        # four binomial standard deviations
        assert rate <= level + 4 * (level / 40_000) ** 0.5, (ratio, rate)


def critical(test, level, share):
    """Interpolated, as every share by itself would take a minute."""
    grid = np.sin(np.linspace(0, np.pi / 2, 129)) ** 2
    angles = np.arcsin(np.sqrt(grid))
    return np.interp(np.arcsin(np.sqrt(share)), angles, test.critical(grid, level))


def test_the_choice_is_by_numbers_alone_and_symmetric():
    assert isinstance(two_sample_test(2, 10, 0.05), BehrensFisher)
    assert isinstance(two_sample_test(10, 2, 0.05), BehrensFisher)
    assert isinstance(two_sample_test(5, 6, 0.05), WorstWelch)
    assert isinstance(two_sample_test(6, 5, 0.05), WorstWelch)


def test_many_values_leave_welch_as_it_is():
    assert worst_welch_level(0.05, 400, 500) == pytest.approx(0.05, rel=1e-4)
    assert isinstance(two_sample_test(1000, 1000, 0.001), WorstWelch)
