"""The simulated verdicts of benchmarks/levels.py are the rule's own."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ssgd_analysis.comparison.rule import Case, judge

PATH = Path(__file__).parents[2] / "benchmarks" / "levels.py"


@pytest.fixture(scope="module")
def levels():
    spec = importlib.util.spec_from_file_location("levels", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("n", "m", "paired"), [(3, 3, True), (8, 8, True), (2, 6, False), (4, 4, False)]
)
@pytest.mark.parametrize("shift", [0.0, -0.12])
def test_vectorised_verdicts_are_those_of_the_rule(levels, n, m, paired, shift):
    rng = np.random.default_rng([n, m, paired])
    said = set()
    for spread in (0.02, 0.06):
        a, b = levels.simulated(
            rng, 20, n, m, levels.LAWS["normal"], 2, 3, paired, shift=shift, spread=spread
        )
        found = levels.verdicts(a, b, paired)
        for i in range(len(a)):
            rows = zip(a[i].tolist(), b[i].tolist(), strict=True)
            cases = [Case(metric="", values=x, baseline=y, paired=paired) for x, y in rows]
            words = {one.verdict for one in judge(cases, levels.RULE, bootstrap=False)}
            said |= words
            for word in ("flatter", "sharper", "no difference"):
                assert found[word][i] == (word in words), (i, word)
    assert len(said) > 1


def test_the_laws_have_mean_zero_and_variance_one(levels):
    normal = np.random.default_rng(0).normal(size=4_000_000)
    for pair in levels.LAWS.values():
        for law in pair:
            values = law(normal)
            assert values.mean() == pytest.approx(0, abs=0.005)
            assert values.std() == pytest.approx(1, abs=0.05)  # the heavy tail's fourth moment


def test_normal_groups_are_called_flatter_no_more_than_five_per_cent(levels):
    """The reported settings: 2 against 10 with 6 × the spread, 3 / 10, 3 / 6; and pairs."""
    draws = 4000
    for n, m, ratio, paired in (
        (2, 10, 6, False), (3, 10, 6, False), (3, 6, 6, False), (2, 10, 2, False),
        (6, 6, 3, True), (3, 3, 6, True),
    ):  # fmt: skip
        rng = np.random.default_rng([n, m, ratio])
        a, b = levels.simulated(rng, draws, n, m, levels.LAWS["normal"], ratio, 2, paired)
        found = levels.verdicts(a, b, paired)
        # both sides together are at most 5%, up to three binomial standard deviations
        limit = 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5
        assert (found["test below"] | found["test above"]).mean() <= limit
        assert (found["flatter"] | found["sharper"]).mean() <= limit
        for edge in (0.1, -0.1):
            a, b = levels.simulated(
                rng, draws, n, m, levels.LAWS["normal"], ratio, 1, paired, shift=edge
            )
            assert levels.equivalent(a, b, paired).mean() <= limit
