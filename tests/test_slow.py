"""``slow.txt`` names tests that there are."""

from pathlib import Path

from conftest import SLOW, is_slow

ROOT = Path(__file__).parents[1]


def test_every_line_names_a_test_that_there_is():
    for start, _ in SLOW:
        path, _, name = start.partition("::")
        assert f"\ndef {name.partition('[')[0]}" in (ROOT / path).read_text(encoding="utf-8"), start


def test_what_a_line_excepts_is_quick():
    line = "tests/curvature/test_operator.py::test_products_equal_the_dense_matrix"
    assert is_slow(f"{line}[mlp-ggn]")
    assert not is_slow(f"{line}[mlp-hessian]")
    assert not is_slow(f"{line}[tied-ggn]")
