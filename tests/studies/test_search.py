"""Equal care: the sampler is the same for all, the choice looks at validation alone."""

import numpy as np
import pytest

from ssgd_analysis.errors import InputError
from ssgd_analysis.studies.search import Range, Tuning, best, points, trial_scores

LR, C = Range(0.01, 1.0, log=True), Range(0.0, 2.0)


def tuning(trials=8, sampler="sobol", seed=0):
    return Tuning(trials, [1000], 0.2, sampler, seed, {"lr": LR})


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
@pytest.mark.parametrize("trials", [1, 7, 8, 12])
def test_all_arms_get_the_same_trials(sampler, trials):
    plan = tuning(trials, sampler)
    alone, with_strength = points(plan, {"lr": LR}), points(plan, {"lr": LR, "noise_scale": C})
    assert len(alone) == len(with_strength) == trials
    assert [one["lr"] for one in alone] == [one["lr"] for one in with_strength]
    assert points(plan, {"lr": LR, "noise_scale": C}) == with_strength  # nothing global is drawn
    assert points(tuning(trials, sampler, seed=1), {"lr": LR}) != alone


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
def test_points_fill_the_ranges(sampler):
    found = points(tuning(64, sampler), {"lr": LR, "noise_scale": C})
    lr = np.array([one["lr"] for one in found])
    scale = np.array([one["noise_scale"] for one in found])
    assert lr.min() >= 0.01 and lr.max() <= 1 and scale.min() >= 0 and scale.max() <= 2  # noqa: PT018
    # log-uniform: half of them below the geometric mean
    assert (lr < 0.1).sum() == pytest.approx(32, abs=2)
    assert (scale < 1).sum() == pytest.approx(32, abs=2)


def test_nothing_to_tune_is_one_trial_and_too_much_is_refused():
    assert points(tuning(), {}) == [{}]
    with pytest.raises(InputError, match="at most"):
        points(tuning(), {str(i): C for i in range(7)})


def test_edges_are_named():
    assert [LR.edge(value) for value in (0.011, 0.1, 0.99)] == ["low edge", "inside", "high edge"]
    assert LR.share(LR.at(0.3)) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_an_empty_range_is_refused(ends):
    with pytest.raises(InputError):
        Range(*ends)


def test_no_logarithm_of_zero():
    with pytest.raises(InputError, match="logarithm"):
        Range(0.0, 1.0, log=True)


class NoTest(dict):
    """A history record whose test part must not be read."""

    def __getitem__(self, key):
        assert not key.startswith("test"), "tuning looked at test data"
        return super().__getitem__(key)


def record(accuracy, loss):
    return NoTest(val_accuracy=accuracy, val_loss=loss, test_accuracy=1.0, test_loss=0.0)


def test_the_best_is_the_most_accurate_then_the_lowest_loss():
    trials = [
        trial_scores([record(0.9, 1.0), record(0.8, 1.0)]),
        trial_scores([record(0.7, 0.5), record(1.0, 0.1)]),
        trial_scores([record(0.9, 0.1), None]),  # one seed diverged: no choice
        trial_scores([record(0.6, 0.0), record(0.9, 0.0)]),
    ]
    assert [one["failed"] for one in trials] == [0, 0, 1, 0]
    assert best(trials) == 1
    assert best(trials[2:3]) is None
