import math

import pytest

from ssgd_analysis.optimizers.schedule import learning_rate
from ssgd_analysis.settings.training import LR_SCHEDULES


@pytest.mark.parametrize("step", [0, 1, 57, 99])
def test_constant(step):
    assert learning_rate(0.3, "constant", step, 100, 0) == 0.3


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1), (49, 1), (50, 0.1), (74, 0.1), (75, 0.01), (99, 0.01)]
)
def test_step_falls_at_a_half_and_at_three_quarters(step, factor):
    assert learning_rate(0.4, "step", step, 100, 0) == pytest.approx(0.4 * factor)


@pytest.mark.parametrize("total", [7, 10, 101])
def test_step_where_the_number_of_steps_is_odd(total):
    rates = [learning_rate(1.0, "step", step, total, 0) for step in range(total)]
    assert rates == pytest.approx([0.1 ** ((4 * s >= 2 * total) + (4 * s >= 3 * total))
                                   for s in range(total)])  # fmt: skip


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1), (25, (1 + math.sqrt(0.5)) / 2), (50, 0.5), (75, (1 - math.sqrt(0.5)) / 2), (100, 0)],
)
def test_cosine(step, factor):
    assert learning_rate(0.2, "cosine", step, 100, 0) == pytest.approx(0.2 * factor, abs=1e-15)


@pytest.mark.parametrize("schedule", LR_SCHEDULES)
def test_warm_up_is_a_line_to_the_peak(schedule):
    rates = [learning_rate(0.5, schedule, step, 100, 10) for step in range(10)]
    assert rates == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert learning_rate(0.5, schedule, 10, 100, 10) == pytest.approx(0.5)


def test_cosine_after_warm_up_ends_at_zero():
    half_way = learning_rate(1.0, "cosine", 55, 100, 10)
    assert half_way == pytest.approx(0.5)
    assert learning_rate(1.0, "cosine", 100, 100, 10) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("schedule", LR_SCHEDULES)
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (5, 5), (100, 0), (100, 30)])
def test_never_above_the_peak_never_zero_and_falling_after_warm_up(schedule, total, warmup):
    rates = [learning_rate(0.7, schedule, step, total, warmup) for step in range(total)]
    assert all(0 < rate <= 0.7 for rate in rates)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
