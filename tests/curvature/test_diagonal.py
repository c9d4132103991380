import nets
import numpy as np
import pytest
import torch
from planted import network_like, planted
from torch import Tensor

from ssgd_analysis.curvature import DenseOperator, Diagonal, diagonal
from ssgd_analysis.errors import InputError

METHODS = ("hutchinson", "xdiag")


def estimate(matrix: Tensor, seed: int = 0, **options) -> Diagonal:
    return diagonal(DenseOperator(matrix), generator=nets.generator(seed), **options)


def errors(matrix: Tensor, count: int, **options) -> tuple[Tensor, Tensor]:
    found = [estimate(matrix, seed, **options) for seed in range(count)]
    away = torch.stack([one.values for one in found]) - matrix.diag()
    return away, torch.stack([one.stderr for one in found])


@pytest.mark.parametrize("values", [network_like(60), np.linspace(1, 3, 60)], ids=["net", "flat"])
@pytest.mark.parametrize("method", METHODS)
def test_unbiased_with_an_honest_error(method, values):
    matrix = planted(values)
    away, stderrs = errors(matrix, 200, probes=20, method=method)
    # 60 entries: the largest of as many normal numbers stays below 4.5
    assert float((away.mean(dim=0) / (away.std(dim=0) / 200**0.5)).abs().max()) < 4.5
    total = away.sum(dim=1)  # a bias common to all entries shows here first
    assert float(total.mean().abs()) < 4 * float(total.std()) / 200**0.5
    assert float((away.abs() <= 2.2 * stderrs).double().mean()) > 0.85
    ratio = float((stderrs**2).mean().sqrt() / away.square().mean().sqrt())
    assert 0.85 < ratio < (1.15 if method == "hutchinson" else 1.5)


def test_hutchinson_has_the_variance_of_theory():
    matrix = planted(np.linspace(-1, 2, 20))
    away, _ = errors(matrix, 400, probes=8)
    theory = (matrix.square().sum(dim=1) - matrix.diag().square()) / 8
    np.testing.assert_allclose(away.var(dim=0), theory, rtol=0.35)


def test_xdiag_wins_where_the_spectrum_decays():
    matrix = planted(10 / np.arange(1, 101.0) ** 2)
    sizes = {m: errors(matrix, 40, probes=20, method=m)[0].square().mean() for m in METHODS}
    assert float(sizes["xdiag"]) < 0.1 * float(sizes["hutchinson"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0, 0.0], [1.0, -2.0, 5.0, 0.0, 0.0, 7.0]])
def test_exact_on_diagonal_matrices(method, values):
    found = estimate(torch.diag(torch.tensor(values, dtype=torch.float64)), method=method)
    np.testing.assert_allclose(found.values, values, atol=1e-10)
    np.testing.assert_allclose(found.stderr, 0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("probes", [4, 8, 9, 21])
def test_spends_what_it_says(method, probes):
    operator = DenseOperator(planted(np.linspace(-1, 2, 30)))
    found = diagonal(operator, generator=nets.generator(), probes=probes, method=method)
    assert (
        found.probes == operator.products == (probes if method == "hutchinson" else probes // 2 * 2)
    )


@pytest.mark.parametrize(
    "options", [{"probes": 1}, {"probes": 3, "method": "xdiag"}, {"method": "bekas"}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(InputError, match=r"probes|should be one of"):
        estimate(planted([1, 2]), **options)
