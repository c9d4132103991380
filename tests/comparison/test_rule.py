"""The rule: its tests against scipy and brute force, its promises by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ssgd_analysis.comparison.overall import overall_verdict
from ssgd_analysis.comparison.power import detection_power, equivalence_power, seeds_needed
from ssgd_analysis.comparison.resampling import (
    bootstrap_interval,
    sign_flip,
    smallest_flip_p,
)
from ssgd_analysis.comparison.rule import Case, judge, p_value, rule_text
from ssgd_analysis.comparison.statistics import equivalence_p
from ssgd_analysis.errors import InputError
from ssgd_analysis.settings.comparison import VerdictRule

RULE = VerdictRule()


# --- exact tests and intervals ---


@pytest.mark.parametrize("seed", range(3))
def test_sign_flip_is_all_signs(seed):
    values = np.random.default_rng(seed).normal(0.5, 1, 9)
    means = [abs(np.mean(values * s)) for s in itertools.product((1, -1), repeat=9)]
    brute = np.mean(np.array(means) >= abs(values.mean()) - 1e-12)
    assert sign_flip(values) == pytest.approx(brute, rel=1e-12)
    scipys = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip(values) == pytest.approx(scipys, rel=1e-12)


def test_sign_flip_counts_ties_and_reaches_its_smallest():
    assert sign_flip([0.1, 0.1, 0.1]) == smallest_flip_p(3) == 0.25
    # |±1 ±2 ±3| ≥ 4: (1,3 | 2), that is 4 and 6, of 0, 2, 4, 6
    assert sign_flip([-1.0, 2.0, 3.0]) == 0.5
    assert smallest_flip_p(16) == 2.0**-15
    assert smallest_flip_p(17) is None


def test_which_test_it_is_depends_on_the_numbers_of_seeds():
    values = list(np.random.default_rng(0).normal(size=20))
    base = [0.1 * v for v in values]

    def name(n, level, paired=True):
        return p_value(values[:n], base[:n], paired=paired, level=level)[1]

    assert name(5, 0.05) == "paired t-test, 5 seeds"  # 2/32 can't reach 5%
    assert name(6, 0.05) == "exact sign-flip test, 6 seeds"
    assert name(6, 0.05 / 4) == "paired t-test, 6 seeds"  # nor 2/64 after correction
    assert name(17, 0.05) == "paired t-test, 17 seeds"  # too many signs
    worst = "Welch t-test, p at the worst ratio of spreads"
    assert name(3, 0.05, paired=False) == f"{worst}, 3 and 3 seeds"
    unequal = [p_value(values[:n], base[:10], paired=False, level=0.05)[1] for n in (2, 9)]
    assert unequal == ["Behrens-Fisher test, 2 and 10 seeds", f"{worst}, 9 and 10 seeds"]
    assert p_value([1.0], [2.0], paired=True, level=0.05) == (None, "")


@pytest.mark.parametrize("sign", [1, -1])
def test_equivalence_is_two_one_sided_tests(sign):
    """Of the contrasts a − (1 ± margin) b: what is a share of an estimated mean is no constant."""
    rng = np.random.default_rng(1)
    a, b, margin = sign * rng.normal(10.1, 0.3, 6), sign * rng.normal(10, 0.4, 6), 0.1
    above, below = ("greater", "less") if sign == 1 else ("less", "greater")
    ends = [
        stats.ttest_rel(a, 0.9 * b, alternative=above).pvalue,
        stats.ttest_rel(a, 1.1 * b, alternative=below).pvalue,
    ]
    assert equivalence_p(a, b, margin, paired=True) == pytest.approx(max(ends))
    # without pairs by the same test as a difference: half of its two-sided p
    ends = [p_value(a[:4], factor * b, paired=False, level=0.1)[0] / 2 for factor in (0.9, 1.1)]
    assert equivalence_p(a[:4], b, margin, paired=False) == pytest.approx(max(ends))
    far = equivalence_p(2 * a, b, margin, paired=False)
    assert far == pytest.approx(1 - p_value(2 * a, 1.1 * b, paired=False, level=0.1)[0] / 2)
    assert far > 0.99
    assert equivalence_p(2 * a, b, margin, paired=True) > 0.99
    assert equivalence_p(a, b, 0.0, paired=True) is None
    assert equivalence_p([1.0], [1.0], 1.0, paired=True) is None
    assert equivalence_p([1.0, 2.0], [1.0, 2.0], 0.1, paired=True) == 0.0  # the same numbers
    # equal differences have no spread, which is no evidence
    assert equivalence_p([1.1, 2.1], [1.0, 2.0], 0.2, paired=True) is None
    assert equivalence_p([1.1, 2.2], [1.0, 2.0], 0.1, paired=True) == 0.5  # on the very edge


def test_equivalence_counts_the_error_of_the_baselines_mean():
    """Runs that vary by 50% and pairs that differ by exactly the margin: no equivalence."""
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(1000):
        b = 1 + 0.5 * rng.normal(size=6)
        a = 1.1 * b + 0.002 * rng.normal(size=6)
        wrong += equivalence_p(a, b, 0.1, paired=True) < 0.05
    # three binomial standard deviations of 1000; with the margin held for a constant it is 49%
    assert wrong / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_bootstrap_interval_repeats_moves_along_and_knows_its_limits():
    rng = np.random.default_rng(2)
    a, b = rng.normal(3, 1, 12), rng.normal(1, 1, 12)
    low, high = bootstrap_interval(a, b, paired=True)
    assert low < np.mean(a - b) < high
    assert bootstrap_interval(a, b, paired=True) == (low, high)
    moved = bootstrap_interval(a + 5, b, paired=True)
    assert moved == pytest.approx((low + 5, high + 5))
    # of normal values about the normal interval: n = 12 makes it 10% narrower or so, the
    # quantiles of 2000 resamples are good to some 5% of its width
    half = 1.96 * np.std(a - b, ddof=1) / 12**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.25)
    one, two = bootstrap_interval(a, b[:7], paired=False)
    assert one < a.mean() - b[:7].mean() < two
    assert bootstrap_interval([1, 2], [0, 0], paired=True) is None
    assert bootstrap_interval([1, 2, 3], [0, 1, 2], paired=True) is None


# --- power ---


def test_power_without_margin_is_the_noncentral_t():
    n, spread, effect, level = 7, 1.3, 1.1, 0.01
    shift = effect / (spread / n**0.5)
    exact = stats.nct.sf(stats.t.isf(level / 2, n - 1), n - 1, shift)
    # the mean over 400 quantiles of the spread instead of an integral
    assert detection_power(n, spread, effect, level) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("effect", [0.0, 0.15])
def test_power_is_that_of_simulated_tests(effect):
    n, spread, margin, level, draws = 8, 0.2, 0.3, 0.02, 40_000
    values = np.random.default_rng(3).normal(effect, spread, (draws, n))
    means, errors = values.mean(axis=1), values.std(axis=1, ddof=1) / n**0.5
    inside = stats.t.sf((margin - np.abs(means)) / errors, n - 1) < level
    # 0.01: four standard deviations of a share of 40,000 draws
    found = equivalence_power(n, spread, margin, level, effect)
    assert found == pytest.approx(inside.mean(), abs=0.01)
    detected = (2 * stats.t.sf(np.abs(means) / errors, n - 1) < level) & (means >= 0.1)
    assert detection_power(n, spread, effect, level, 0.1) == pytest.approx(
        detected.mean(), abs=0.01
    )


def test_seeds_needed_are_just_enough():
    def powers(n):
        found = detection_power(n, 0.2, 0.2, 0.01, 0.1)
        return min(found, equivalence_power(n, 0.2, 0.1, 0.01))

    n = seeds_needed(0.2, 0.1, 0.2, 0.01, 0.8)
    assert powers(n) >= 0.8 > powers(n - 1)
    assert seeds_needed(0.0, 0.1, 0.2, 0.01, 0.8) == 2
    assert seeds_needed(10.0, 0.1, 0.2, 0.01, 0.8) is None
    assert seeds_needed(1.0, 0.0, 0.0, 0.01, 0.8) is None


# --- verdicts ---


def case(shift, noise=0.02, n=6, **fields):
    rng = np.random.default_rng(4)
    base = 10 + rng.normal(0, 1, n)
    values = base + 10 * shift + 10 * noise * rng.normal(size=n)
    named = {"metric": "expected", "paired": True, **fields}
    return Case(values=values.tolist(), baseline=base.tolist(), **named)


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (case(-0.5), "flatter", "expected differs by -5"),
        (case(0.5), "sharper", "exact sign-flip test, 6 seeds"),
        (case(-0.5, flatter="higher"), "sharper", "differs"),
        (case(0.5, flatter=None), "not comparable", "neither flatter nor sharper"),
        (case(0.0), "no difference", "within ±10%"),
        (case(0.03, noise=0.005), "no difference", "within ±10%"),  # real, but too small
        (case(0.0, noise=0.5), "undecided", "neither a difference nor"),
        (case(0.085, noise=0.025), "undecided", "less than the margin of 10%"),
        (case(0.5, n=1), "undecided", "one seed"),
        (case(0.0, noise=0, n=1), "no difference", "agrees to 0.1%"),
        (case(0.002, noise=0, n=1), "undecided", "one seed"),
        (case(-0.5, incomparable_why="another problem"), "not comparable", "another problem"),
    ],
)
def test_verdicts(given, verdict, words):
    (found,) = judge([given], RULE)
    assert (found.verdict, words in found.why) == (verdict, True), found
    assert (found.seeds_needed is not None) == (found.verdict == "undecided")


def test_missing_values_are_not_comparable_and_no_spread_is_undecided():
    gone = Case(metric="trace", values=None, baseline=[1.0, 2.0], paired=True)
    flat = Case(metric="trace", values=[1.5, 2.5], baseline=[1.0, 2.0], paired=True)
    found = judge([gone, flat], RULE)
    assert "missing" in found[0].why
    assert "no spread" in found[1].why
    assert [one.verdict for one in found] == ["not comparable", "undecided"]
    assert found[1].seeds_needed is None


def test_what_does_not_count_is_a_family_of_its_own():
    raw = [case(-0.5, excluded_why="rescalable", metric=f"raw {i}") for i in range(9)]
    found = judge([case(-0.5), case(-0.4), *raw], RULE)
    assert found[0].p_holm == pytest.approx(2 * found[0].p)
    assert found[2].p_holm == pytest.approx(9 * found[2].p)
    assert [one.counts for one in found] == [True] * 2 + [False] * 9
    incomparable_why = judge([case(-0.5), case(-0.4, incomparable_why="another problem")], RULE)
    assert incomparable_why[0].p_holm == incomparable_why[0].p
    assert incomparable_why[1].p_holm is None


A, B = case(-0.5, metric="a"), case(0.5, metric="b")
SAME, OPEN = case(0.0, metric="same"), case(0.0, noise=0.5, metric="open")
GONE = Case(metric="gone", values=None, baseline=[1.0, 2.0], paired=True)
ONE = case(0.5, n=1)
RAW = case(-0.5, metric="raw", excluded_why="rescaling moves it")


@pytest.mark.parametrize(
    ("cases", "verdict", "words"),
    [
        ([A, SAME, OPEN], "flatter", "by a, but not by same, open"),
        ([B], "sharper", "by b"),
        ([A, B], "undecided", "disagree"),
        ([SAME, SAME], "no difference", "within the margin"),
        ([SAME, OPEN], "undecided", "by open: about 303 seeds are needed"),
        ([OPEN, GONE], "undecided", "are needed; gone is missing"),
        ([SAME, GONE], "undecided", "gone is missing"),
        ([GONE], "not comparable", "gone is missing"),
        ([ONE], "undecided", "one seed gives no interval"),
        ([RAW], "not comparable", "none of the metrics counts: raw (rescaling moves it)"),
        ([SAME, RAW], "no difference", "; raw (flatter) is not counted: rescaling moves it"),
    ],
)
def test_overall_verdicts(cases, verdict, words):
    found = overall_verdict(cases, judge(cases, RULE))
    assert (found[0], words in found[1]) == (verdict, True), found


def test_overall_of_other_problems_is_not_comparable():
    assert overall_verdict([A], judge([A], RULE), incomparable_why="another problem")[:2] == (
        "not comparable",
        "another problem",
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"margin": 0.0}, "margin=0.0 should be above 0"),
        ({"level": 1.0}, "level=1.0 should be below 1"),
        ({"power": -1.0}, "power=-1.0 should be above 0"),
    ],
)
def test_a_rule_out_of_range_is_refused(field, message):
    with pytest.raises(InputError, match=f"^{message}"):
        VerdictRule(**field)


def test_the_text_holds_the_numbers():
    text = rule_text(VerdictRule(level=0.01, margin=0.2, power=0.9))
    for words in ("level is 1%", "at least 20%", "±20%", "40%", "90% power"):
        assert words in text


# --- what the rule promises ---


def drawn(rng, n, *, paired, effect=0.0, spread=0.2, groups=2, skewed=True):
    """Cases of two correlated metrics for each group, runs being what varies."""

    def runs():
        shared = rng.normal(size=n)
        rows = 0.7 * shared + 0.7 * rng.normal(size=(2, n))
        return np.exp(spread * rows) if skewed else 1 + spread * rows

    base, cases = runs(), []
    for _ in range(groups):
        values = runs() + effect
        cases += [
            Case(
                metric=f"m{i}", values=values[i].tolist(), baseline=base[i].tolist(), paired=paired
            )
            for i in range(2)
        ]
    return cases


def verdicts(cases):
    found = judge(cases, RULE, bootstrap=False)
    return [overall_verdict(cases[i : i + 2], found[i : i + 2])[0] for i in range(0, len(cases), 2)]


def false_rate(n, paired, repeats, spread):
    rng = np.random.default_rng([n, paired])
    wrong = 0
    for _ in range(repeats):
        said = verdicts(drawn(rng, n, paired=paired, spread=spread))
        wrong += "flatter" in said or "sharper" in said
    return wrong / repeats


SOME_SLOW = [
    (3, True),
    pytest.param(8, True, marks=pytest.mark.slow),
    (3, False),
    pytest.param(5, False, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("n", "paired"), SOME_SLOW)
def test_null_data_get_few_false_verdicts(n, paired):
    # three binomial standard deviations of 250 comparisons above 5%: a broken rule, as one
    # without Holm (7% to 9%) or with a wrong spread, is told by the slow test below
    assert false_rate(n, paired, 250, 0.2) <= 0.05 + 3 * (0.05 * 0.95 / 250) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.2, 0.7])
@pytest.mark.parametrize(
    ("n", "paired"), [(2, True), (3, True), (5, True), (8, True), (3, False), (5, False)]
)
def test_the_false_verdict_rate_is_below_five_per_cent(n, paired, spread):
    # two binomial standard deviations of 2000 comparisons
    assert false_rate(n, paired, 2000, spread) <= 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5


@pytest.mark.parametrize("paired", [True, False])
def test_planted_effects_are_found_with_the_power_that_is_printed(paired):
    """At the number of seeds asked for, 2 × margin is found and its absence shown."""
    rng = np.random.default_rng(5)
    spread, family = 0.05, 2
    n = seeds_needed(
        spread * 2**0.5 * 0.98**0.5,  # of a difference; 0.7² + 0.7² = 0.98
        RULE.margin,
        2 * RULE.margin,
        RULE.level / family,
        RULE.power,
        1 if paired else 2,
    )
    repeats, found, absent = 150, 0, 0
    plan = {"paired": paired, "spread": spread, "groups": 1, "skewed": False}
    for _ in range(repeats):
        one, two = (
            judge(drawn(rng, n, effect=e, **plan), RULE, bootstrap=False) for e in (-0.2, 0)
        )
        found += one[0].verdict == "flatter"
        absent += two[0].verdict == "no difference"
    # three binomial standard deviations below 80%; Bonferroni in the plan, Holm in the test, so
    # that the power is a little above what is planned
    least = RULE.power - 3 * (0.8 * 0.2 / repeats) ** 0.5
    assert found / repeats >= least
    assert least <= absent / repeats <= 0.97


def test_too_few_seeds_say_how_many(capsys):
    (found,) = judge([case(0.0, noise=0.1, n=4)], RULE)
    gaps = np.subtract(found_values := case(0.0, noise=0.1, n=4).values, case(0, n=4).baseline)
    assert len(found_values) == 4
    margin = 0.1 * np.mean(case(0, n=4).baseline)
    # the absence is shown by a − (1 ± 10%) b, of which the wider one takes more seeds
    base = np.array(case(0, n=4).baseline)
    wider = max(float(np.std(found_values - f * base, ddof=1)) for f in (0.9, 1.1))
    spread = float(gaps.std(ddof=1))
    needed = seeds_needed(spread, margin, 2 * margin, 0.05, 0.8, contrast=wider)
    assert needed > seeds_needed(spread, margin, 2 * margin, 0.05, 0.8)
    assert found.seeds_needed == needed > 4
    assert f"about {needed} seeds are needed" in found.why
