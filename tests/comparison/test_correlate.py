"""Rank correlations: closed cases, brute force, coverage, and the sweep's bookkeeping."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ssgd_analysis.comparison.correlate import rank_correlations, varying
from ssgd_analysis.comparison.granulated import granulated
from ssgd_analysis.comparison.groups import Group
from ssgd_analysis.comparison.kendall import kendall, mean_kendall, tau_a
from ssgd_analysis.runs import Run, TrainConfig


def literal_tau_b(x, y):
    """Concordant minus discordant over √(pairs untied in x · pairs untied in y)."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    inner = sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs)
    untied = [sum(v[i] != v[j] for i, j in pairs) for v in (x, y)]
    return inner / math.sqrt(untied[0] * untied[1])


def test_two_runs_have_a_sign():
    """scipy's asymptotic formula divides by n − 2."""
    assert kendall([1.0, 2.0], [3.0, 5.0]).tau == 1
    assert kendall([1.0, 2.0], [5.0, 3.0]).tau == -1


def test_tau_by_hand():
    # 6 pairs: 5 in order, 1 not
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]).tau == pytest.approx(4 / 6)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(4, size=(2, 9))  # ties on both sides
        assert kendall(x, y).tau == pytest.approx(literal_tau_b(x, y), abs=1e-12)


def test_the_interval_is_fiellers_at_least():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 12))
    found = kendall(x, y)
    low, high = (math.atanh(end) for end in found.ci95)
    assert (low + high) / 2 == pytest.approx(math.atanh(found.tau))
    assert high - low >= 2 * stats.t.ppf(0.975, 11) * math.sqrt(0.437 / 8) - 1e-12
    assert found.units == found.n == 12


def test_perfect_order_is_no_certainty():
    found = kendall(range(6), range(6))
    assert found.tau == pytest.approx(1)
    low, high = found.ci95
    assert 0 < low < 0.8  # of unrelated values one order in 720 is this one, so not zero
    assert high < 1


def test_sign_and_monotone_changes():
    x, y = [1.0, 5.0, 2.0, 7.0, 3.0], [0.1, 0.6, 0.3, 0.5, 0.2]
    found = kendall(x, y)
    assert kendall(np.exp(x), y) == found
    turned = kendall(np.negative(x), y)
    assert turned.tau == -found.tau
    assert turned.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))


@pytest.mark.parametrize(
    ("x", "y", "units", "why"),
    [
        ([], [], None, "fewer than two runs"),
        ([1.0], [2.0], None, "fewer than two runs"),
        ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], None, "all values of one side are equal"),
        ([1, 2, 3, 4], [1, 2, 3, 4], None, "4 are too few for an interval: 5 runs"),
        (range(6), range(6), {"settings": "aabbcc"}, "3 are too few for an interval: 4 settings"),
    ],
)
def test_too_few_runs_have_no_interval_and_say_why(x, y, units, why):
    found = kendall(x, y, units)
    assert found.ci95 is None
    assert found.why == why
    assert (found.tau is None) == ("interval" not in why)


def sweep(rng, settings, seeds, rho, share):
    """Values of runs with true τ = 2/π asin ρ; ``share`` of the variance belongs to settings."""
    mix = np.linalg.cholesky([[1, rho], [rho, 1]]).T
    own = rng.standard_normal((settings, 1, 2)) @ mix * math.sqrt(share)
    runs = rng.standard_normal((settings, seeds, 2)) @ mix * math.sqrt(1 - share)
    return (own + runs).reshape(-1, 2).T


def coverage(settings, seeds, rho, share, units=True, repeats=400):
    rng = np.random.default_rng(2)
    truth = 2 / math.pi * math.asin(rho)
    each = np.repeat(np.arange(settings), seeds)
    kinds = {"settings": each, "seeds": np.tile(np.arange(seeds), settings)} if units else None
    hits = 0
    for _ in range(repeats):
        x, y = sweep(rng, settings, seeds, rho, share)
        low, high = kendall(x, y, kinds).ci95
        hits += low <= truth <= high
    return hits / repeats


# 400 repeats: at a true coverage of 95% fewer than 91.7% have a chance of 0.1%
@pytest.mark.parametrize(
    ("settings", "seeds", "rho", "share"),
    [(6, 1, 0.0, 0), (8, 1, 0.6, 0), (20, 1, 0.9, 0), (6, 3, 0, 0.9), (12, 3, 0.7, 0.9)],
)
def test_intervals_cover(settings, seeds, rho, share):
    assert coverage(settings, seeds, rho, share, units=seeds > 1) >= 0.917


def test_runs_of_one_setting_are_no_independent_witnesses():
    """What the interval would be without its units: the reason that they are there."""
    rng, hits, repeats = np.random.default_rng(3), 0, 300
    for _ in range(repeats):
        x, y = sweep(rng, 12, 3, 0.7, 0.9)
        centre, half = math.atanh(kendall(x, y).tau), 1.96 * math.sqrt(0.437 / 32)
        hits += abs(centre - math.atanh(2 / math.pi * math.asin(0.7))) <= half
    assert hits / repeats < 0.85


def test_mean_within_groups():
    one = ([1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3])
    other = ([1, 2, 3, 4], [4, 3, 2, 1], [0, 1, 2, 3])
    assert mean_kendall([one, other]).tau == 0
    assert mean_kendall([one, one, other]).tau == pytest.approx(1 / 3)
    flat = ([1, 1, 1, 1], [1, 2, 3, 4], [0, 1, 2, 3])
    assert mean_kendall([one, other, flat]).n == 8
    assert "too few" in mean_kendall([one, other]).why
    assert mean_kendall([flat]).why == "no group has two runs that differ"
    assert mean_kendall([one, one, one]).ci95 is None


def test_the_mean_within_groups_covers_when_seeds_are_shared():
    rng, hits, repeats = np.random.default_rng(4), 0, 300
    for _ in range(repeats):
        # seeds act alike in all groups: half of the variance is theirs
        own, rest = rng.standard_normal((2, 1, 6)), rng.standard_normal((2, 5, 6))
        x, y = math.sqrt(0.5) * (own + rest)
        found = mean_kendall([(a, b, range(6)) for a, b in zip(x, y, strict=True)])
        hits += found.ci95 is None or found.ci95[0] <= 0 <= found.ci95[1]
    assert hits / repeats >= 0.90  # 95% with 300 repeats: below 0.90 at 1 in 10,000


def literal_psi(points, x, y, seeds):
    """Section 4 of the paper, by looking at all pairs: ordered, of all subspaces."""
    names, psis = list(points[0]), []
    for name in names:
        places = {}
        for i, point in enumerate(points):
            rest = tuple(point[other] for other in names if other != name)
            places.setdefault((seeds[i], rest), []).append(i)
        taus = []
        for members in places.values():
            if len(members) > 1:
                pairs = list(itertools.permutations(members, 2))
                signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs]
                taus.append(sum(signs) / len(pairs))
        if taus:
            psis.append(sum(taus) / len(taus))
    return sum(psis) / len(psis)


def grid(seeds=2):
    places = list(itertools.product([0.1, 0.2, 0.4], [32, 128], [0.0, 1e-4], range(seeds)))
    points = [{"lr": lr, "batch_size": b, "weight_decay": d} for lr, b, d, _ in places]
    return points, [seed for *_, seed in places]


@pytest.mark.parametrize("drop", [0, 5, 13])
def test_granulated_is_the_papers(drop):
    points, seeds = grid()
    rng = np.random.default_rng(drop)
    keep = sorted(rng.permutation(len(points))[drop:])  # a grid with holes too
    points, seeds = [points[i] for i in keep], [seeds[i] for i in keep]
    x, y = rng.integers(5, size=(2, len(keep)))
    found = granulated(points, x, y, seeds)
    assert found.psi == pytest.approx(literal_psi(points, x, y, seeds), abs=1e-12)


def test_granulated_sees_through_a_setting_that_moves_both():
    """Between learning rates all runs are in order, within one all are against it."""
    points = [{"lr": lr, "batch_size": b} for lr in (1, 2, 3) for b in (1, 2, 3)]
    x = [10 * p["lr"] + p["batch_size"] for p in points]
    y = [10 * p["lr"] - p["batch_size"] for p in points]
    assert kendall(x, y).tau == pytest.approx((27 - 9) / 36)
    found = granulated(points, x, y, [0] * 9)
    assert {name: axis.psi for name, axis in found.axes.items()} == {"lr": 1, "batch_size": -1}
    assert found.psi == 0
    assert found.axes["lr"].subspaces == found.axes["lr"].values == 3
    assert found.n == 9


def test_granulated_says_what_is_missing():
    assert granulated([{}], [1], [1], [0]).why == "no setting varies"
    apart = granulated([{"lr": 1, "b": 1}, {"lr": 2, "b": 2}], [1, 2], [1, 2], [0, 0])
    assert apart.psi is None
    assert apart.why == "no two runs of one seed differ in lr or b alone"
    other_seed = granulated([{"lr": 1}, {"lr": 2}], [1, 2], [1, 2], [0, 1])
    assert other_seed.psi is None
    one = granulated([{"lr": 1}, {"lr": 2}], [1, 2], [1, 2], [0, 0])
    assert (one.psi, one.ci95, one.why) == (1, None, "one seed gives no interval")


def test_granulated_interval_is_over_seeds():
    points, seeds = grid(4)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, len(points)))
    found = granulated(points, x, y, seeds)
    alone = []
    for seed in range(4):
        mine = [i for i, own in enumerate(seeds) if own == seed]
        alone.append(literal_psi([points[i] for i in mine], x[mine], y[mine], [0] * len(mine)))
    low, high = stats.t.interval(0.95, 3, np.mean(alone), stats.sem(alone))
    assert found.ci95 == pytest.approx((low, high))  # the grid is full: Ψ is the mean over seeds


def test_granulated_intervals_cover():
    """On a grid whose Ψ is known: a pair d apart in both is in order with Φ(d/√2) on each side."""
    places = list(itertools.product(range(3), range(3), range(4)))
    points = [{"lr": lr, "batch_size": b} for lr, b, _ in places]
    base = np.array([0.7 * lr + 0.35 * b for lr, b, _ in places])

    def pair(distance):
        return (2 * stats.norm.cdf(distance / math.sqrt(2)) - 1) ** 2

    truth = np.mean([(2 * pair(step) + pair(2 * step)) / 3 for step in (0.7, 0.35)])
    rng, found = np.random.default_rng(6), []
    for _ in range(300):
        x, y = base + rng.standard_normal((2, len(base)))
        found.append(granulated(points, x, y, [seed for *_, seed in places]))
    values = [one.psi for one in found]
    assert abs(np.mean(values) - truth) < 4 * stats.sem(values)
    hits = [one.ci95[0] <= truth <= one.ci95[1] for one in found if one.ci95]
    assert np.mean(hits) >= 0.90  # 95% with 300 repeats: below 0.90 at 1 in 10,000


def test_tau_a_counts_ties_as_zero():
    assert tau_a(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0
    assert tau_a(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 3)


def config(method="sgd", seed=0, **fields):
    return TrainConfig(method=method, data="digits", model=fields.pop("model", "mlp"), **fields)


def made(table):
    """Groups and a measure out of rows (group name, config, seed → values)."""
    groups, values = [], {}
    for name, settings, rows in table:
        runs = {seed: Run(Path(f"{name}/{seed}")) for seed in rows}
        groups.append(Group(name, settings, runs))
        values |= {str(runs[seed].folder): own for seed, own in rows.items()}
    return groups, lambda run, metric, step: values[str(run.folder)].get(metric)


def planted(flat, error, loss=0.1):
    return {
        "lambda_max": flat,
        "test_accuracy": 1 - error,
        "train_accuracy": 1.0,
        "test_loss": loss + error,
        "train_loss": loss,
    }


def rows(found, kind="tau", **wanted):
    return [r for r in found[kind] if all(r[k] == v for k, v in wanted.items())]


def test_a_larger_metric_with_a_larger_error_is_positive():
    table = [
        (
            f"sgd lr={lr}",
            config(lr=lr),
            {s: planted(lr + s / 10, lr / 10 + s / 100) for s in range(3)},
        )
        for lr in (1.0, 2.0, 3.0, 4.0)
    ]
    found = rank_correlations(*made(table), metrics=["lambda_max", "test_accuracy", "train_loss"])
    assert set(found["outcomes"]) == {"test_error", "loss_gap", "error_gap"}
    assert {row["metric"] for row in found["tau"]} == {"lambda_max", "train_loss"}
    for outcome in found["outcomes"]:
        (method,) = rows(found, metric="lambda_max", outcome=outcome, scope="method")
        assert method["tau"] == pytest.approx(1)
        assert method["n"] == 12
        assert method["ci95"][0] > 0
        inside = rows(found, metric="lambda_max", outcome=outcome, scope="group")
        assert [row["tau"] for row in inside] == [pytest.approx(1)] * 4
        assert inside[0]["why"] == "3 are too few for an interval: 5 runs"
        (psi,) = rows(found, "granulated", metric="lambda_max", outcome=outcome)
        assert psi["psi"] == 1
        assert list(psi["axes"]) == ["lr"]
    (constant,) = rows(found, metric="train_loss", outcome="test_error", scope="method")
    assert constant["tau"] is None
    assert constant["why"] == "all values of one side are equal"


def test_without_accuracy_the_loss_stands_for_error():
    values = {s: {"lambda_max": s, "test_loss": float(s), "train_loss": 0.0} for s in range(5)}
    found = rank_correlations(*made([("sgd", config(), values)]), metrics=["lambda_max"])
    assert set(found["outcomes"]) == {"test_loss", "loss_gap"}
    assert rows(found, outcome="test_loss", scope="group")[0]["tau"] == pytest.approx(1)


def test_runs_without_a_value_are_left_out_and_counted():
    values = {s: planted(float(s), s / 100) for s in range(6)}
    values[2]["lambda_max"] = None
    values[3]["lambda_max"] = math.nan
    found = rank_correlations(*made([("sgd", config(), values)]), metrics=["lambda_max"])
    assert rows(found, outcome="test_error", scope="group")[0]["n"] == 4


def test_other_problems_are_not_put_together():
    table = [
        (model, config(model=model), {s: planted(s + k, s / 100) for s in range(5)})
        for k, model in enumerate(["mlp", "cnn"])
    ]
    found = rank_correlations(*made(table), metrics=["lambda_max"])
    methods = rows(found, outcome="test_error", scope="method")
    assert [row["n"] for row in methods] == [5, 5]
    assert "mlp" in methods[0]["name"]
    assert "cnn" in methods[1]["name"]


def test_settings_that_vary():
    one = varying([config(lr=0.1), config(lr=0.2), config(lr=0.2, seed=3)])
    assert one == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.2}]
    noises = [config("s-sgd", settings={"noise_scale": scale}) for scale in (0.3, 0.6)]
    assert varying(noises) == [{"noise_scale": 0.3}, {"noise_scale": 0.6}]
    both = varying([config(label="mine"), *noises])
    assert [list(point) for point in both] == [["method"]] * 3
    assert len({repr(point) for point in both}) == 3
    assert varying([]) == []


def test_across_methods_the_method_is_an_axis():
    table = []
    for method, shift in (("sgd", 0.0), ("sam", -1.0)):
        for lr in (0.1, 0.2):
            runs = {s: planted(10 * lr + shift + s / 9, lr - shift / 20) for s in range(3)}
            table.append((f"{method} lr={lr}", config(method, lr=lr), runs))
    found = rank_correlations(*made(table), metrics=["lambda_max"])
    (psi,) = rows(found, "granulated", outcome="test_error", scope="all")
    # lr raises both; the method that is flatter has the larger error
    assert {name: axis["psi"] for name, axis in psi["axes"].items()} == {"method": -1, "lr": 1}
    assert psi["psi"] == 0
    assert psi["n"] == 12
