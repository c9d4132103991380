import numpy as np
import pytest

from ssgd_analysis.landscapes.valley import valley_sides


def test_rises_to_both_sides_of_both_ends():
    alpha = np.linspace(-0.5, 1.5, 21)
    # a valley with its lowest point at 1, four times as steep beyond it as before
    loss = np.where(alpha < 1, (1 - alpha) ** 2, 4 * (alpha - 1) ** 2)
    first, second = valley_sides(alpha, loss)
    assert (first["at"], second["at"]) == (0.0, 1.0)
    assert first["distance"] == second["distance"] == 0.5
    assert first["inward"] == pytest.approx(0.5**2 - 1)
    assert first["outward"] == pytest.approx(1.5**2 - 1)
    assert second["inward"] == pytest.approx(0.25)
    assert second["outward"] == pytest.approx(1)


def test_a_line_that_ends_at_its_ends_has_no_outside():
    alpha = np.linspace(0, 1, 5)
    assert valley_sides(alpha, alpha) is None


def test_beyond_half_of_the_way_the_other_end_would_count():
    alpha = np.linspace(-3, 4, 71)
    assert valley_sides(alpha, alpha**2)[0]["distance"] == 0.5
