import math
from collections.abc import Iterator

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from ssgd_analysis.curvature import (
    DenseOperator,
    HessianOperator,
    Operator,
    Spectrum,
    eigenpairs,
    krylov,
)
from ssgd_analysis.curvature.eigenpairs import certify
from ssgd_analysis.errors import InputError


def planted(values, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A full matrix with these eigenvalues."""
    values = torch.as_tensor(np.asarray(values, dtype=float))
    basis, _ = torch.linalg.qr(nets.randn(len(values), len(values), seed=seed))
    matrix = basis @ torch.diag(values) @ basis.T
    return ((matrix + matrix.T) / 2).to(dtype)


def solve(matrix: Tensor, k: int, *, seed: int = 1, **options) -> Spectrum:
    return eigenpairs(DenseOperator(matrix), k, generator=nets.generator(seed), **options)


def assert_honest(matrix: Tensor, spectrum: Spectrum) -> None:
    """Every reported number is what it says, by products of our own in float64."""
    exact = matrix.double()
    truth = torch.linalg.eigvalsh(exact)
    # what the arithmetic itself can do to a quotient or a residual
    rounding = 4 * len(matrix) ** 0.5 * torch.finfo(matrix.dtype).eps * float(truth.abs().max())
    for pair in (*spectrum.largest, spectrum.smallest):
        assert float((truth - pair.value).abs().min()) <= pair.residual_norm + rounding
    values = [pair.value for pair in spectrum.largest]
    assert values == sorted(values, reverse=True)
    for pair, vector in zip(spectrum.largest, spectrum.vectors.double().T, strict=True):
        assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
        norm = float((exact @ vector - pair.value * vector).norm())
        assert pair.residual_norm == pytest.approx(norm, abs=rounding)
        if pair.value:
            assert pair.residual == pytest.approx(pair.residual_norm / abs(pair.value), rel=1e-9)


SPECTRA = {
    "clustered": [10, 9.999, 9.998, 9.997, *np.linspace(-1, 5, 60)],
    "clustered at both ends": [3, 2.999, 2.998, *np.linspace(-1, 1, 50), -2.998, -2.999, -3],
    "negative end larger": [*np.linspace(-50, 1, 40), 2, 3],
    "all negative": np.linspace(-9, -1, 30),
    "singular": [5, 4, 3, *[0] * 60],
    "zero": [0] * 8,
    "identity": [1] * 8,
    "geometric": np.logspace(-8, 2, 60),
    "1x1": [-2.5],
    "2x2": [1, -3],
    "3x3": [1, 1, -3],
}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_planted_spectra(values, k):
    matrix = planted(values)
    spectrum = solve(matrix, k, tol=1e-8)
    truth = np.sort(values)[::-1]
    assert len(spectrum.largest) == min(k, len(truth))
    assert spectrum.vectors.shape == (len(truth), min(k, len(truth)))
    assert_honest(matrix, spectrum)
    assert spectrum.stop in ("residual", "exact")
    # a quotient's error is at most its residual, 1e-8 of the value, or rounding
    scale = np.abs(truth).max()
    found = [pair.value for pair in spectrum.largest]
    np.testing.assert_allclose(found, truth[:k], rtol=1e-8, atol=1e-13 * scale)
    np.testing.assert_allclose(spectrum.smallest.value, truth[-1], rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("seed", range(5))
def test_default_stop_meets_the_tolerance(tol, seed):
    matrix = planted([8, 7, 6, *np.linspace(-2, 5, 200)], seed)
    spectrum = solve(matrix, 3, tol=tol, seed=seed)
    assert spectrum.stop == "residual"
    assert_honest(matrix, spectrum)
    # eigenvalues further apart than twice the residual cannot be mistaken for one another
    for pair, value in zip(spectrum.largest, (8, 7, 6), strict=True):
        assert pair.residual <= tol * (1 + 1e-6)
        assert abs(pair.value - value) <= tol * value
    assert spectrum.smallest.residual <= tol * (1 + 1e-6)


def test_looser_tolerance_costs_less():
    matrix = planted(np.linspace(0, 1, 300) ** 3)
    tols = (1e-1, 1e-3, 1e-8)
    spent = [solve(matrix, 3, tol=tol, smallest=False).products for tol in tols]
    assert spent == sorted(spent)
    assert spent[0] < spent[-1] < 300


@pytest.mark.parametrize("smallest", [True, False])
def test_the_smallest_is_waited_for_only_if_asked(smallest):
    # the lower end is crowded, so it takes far more products than the upper one
    matrix = planted([10, *np.linspace(0, 1, 400)])
    spectrum = solve(matrix, 1, tol=1e-6, smallest=smallest)
    assert_honest(matrix, spectrum)
    assert spectrum.largest[0].value == pytest.approx(10, rel=1e-6)
    assert (spectrum.products > 40) == smallest


def test_float32_over_eight_decades():
    matrix = planted(np.logspace(0, 8, 60), dtype=torch.float32)
    spectrum = solve(matrix, 4, tol=1e-5)
    assert_honest(matrix, spectrum)
    truth = torch.linalg.eigvalsh(matrix.double()).flip(0)
    rounding = 4 * 60**0.5 * torch.finfo(torch.float32).eps * 1e8
    for pair, value in zip(spectrum.largest, truth.tolist(), strict=False):
        assert abs(pair.value - value) <= pair.residual_norm + rounding
        assert pair.residual < 1e-4  # float32 did not spoil the vectors: full orthogonalisation
    assert spectrum.products < 100


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("smallest", [True, False])
def test_restarted_search_finds_the_same(monkeypatch, k, smallest):
    values = [5, 4.9, 4.8, 4.7, 4.6, *np.linspace(-1, 4, 245), -1.5]
    matrix = planted(values)
    restarts = count_restarts(monkeypatch)
    monkeypatch.setattr(krylov, "BASIS_VECTORS", 24)
    spectrum = solve(matrix, k, tol=1e-8, smallest=smallest)
    assert len(restarts) >= 2
    assert spectrum.stop == "residual"
    assert_honest(matrix, spectrum)
    found = [pair.value for pair in spectrum.largest]
    np.testing.assert_allclose(found, values[:k], rtol=1e-8)
    if smallest:
        assert spectrum.smallest.value == pytest.approx(-1.5, rel=1e-8)


def count_restarts(monkeypatch) -> list[int]:
    """A list that grows with each restart."""
    sizes, plain = [], krylov.KrylovBasis.restart

    def restart(basis: krylov.KrylovBasis, keep: np.ndarray) -> None:
        plain(basis, keep)
        sizes.append(basis.count)

    monkeypatch.setattr(krylov.KrylovBasis, "restart", restart)
    return sizes


def test_little_memory_restarts_too(monkeypatch):
    restarts = count_restarts(monkeypatch)
    monkeypatch.setattr(krylov, "BASIS_BYTES", 250 * 8 * 30)  # 30 vectors
    spectrum = solve(planted([5, 4.9, *np.linspace(-1, 4, 248)]), 2, tol=1e-8)
    assert restarts
    np.testing.assert_allclose([p.value for p in spectrum.largest], [5, 4.9], rtol=1e-8)


@pytest.mark.parametrize("basis", [24, 600])
@pytest.mark.parametrize("budget", [1, 5, 30, 100])
def test_the_budget_is_kept_and_said(monkeypatch, basis, budget):
    monkeypatch.setattr(krylov, "BASIS_VECTORS", basis)
    matrix = planted(np.linspace(-1, 1, 400))
    operator = DenseOperator(matrix)
    spectrum = eigenpairs(operator, 2, generator=nets.generator(), tol=1e-10, max_products=budget)
    assert spectrum.stop == "products"
    assert spectrum.products == operator.products <= budget + 3  # k + 1 certify
    assert_honest(matrix, spectrum)
    assert spectrum.largest[0].residual > 1e-10


@pytest.mark.parametrize("tol", [0, -1, math.nan, math.inf])
def test_a_tolerance_that_is_none_is_refused(tol):
    with pytest.raises(InputError, match="tolerance"):
        solve(planted([1, 2]), 1, tol=tol)


@pytest.mark.parametrize("k", [0, -1])
def test_less_than_one_eigenvalue_is_refused(k):
    with pytest.raises(InputError, match="at least 1"):
        solve(planted([1, 2]), k)


def test_a_seed_repeats_exactly():
    matrix = planted(np.linspace(-1, 1, 50))
    first, again = (solve(matrix, 2, seed=5) for _ in range(2))
    assert first.largest == again.largest
    assert torch.equal(first.vectors, again.vectors)


@pytest.mark.parametrize("name", nets.CASES)
def test_hessians_of_networks(name):
    case = nets.CASES[name]()
    dense = reference.hessian(case)
    spectrum = eigenpairs(HessianOperator(*case.problem), 3, tol=1e-8, generator=nets.generator())
    assert_honest(dense, spectrum)
    truth = torch.linalg.eigvalsh(dense)
    found = [pair.value for pair in spectrum.largest]
    np.testing.assert_allclose(found, truth[-3:].flip(0), rtol=1e-8, atol=1e-12)
    assert spectrum.smallest.value == pytest.approx(float(truth[0]), rel=1e-8, abs=1e-12)


def test_single_batch_has_no_sampling_error():
    case = nets.mlp()
    operator = HessianOperator(case.model, case.loss, case.batches(nets.N))
    spectrum = eigenpairs(operator, 1, generator=nets.generator())
    assert spectrum.largest[0].stderr is None
    assert spectrum.smallest.stderr is None


def test_sampling_error_is_that_of_the_batch_quotients():
    case = nets.mlp()
    operator = HessianOperator(*case.problem)
    spectrum = eigenpairs(operator, 2, generator=nets.generator())
    for pair, vector in zip(spectrum.largest, spectrum.vectors.T, strict=True):
        singles = [nets.Case(case.model, case.loss, x, y) for x, y in case.batches()]
        quotients = [float(vector @ reference.hessian(single) @ vector) for single in singles]
        shares = [4 / 11, 4 / 11, 3 / 11]
        mean = sum(s * q for s, q in zip(shares, quotients, strict=True))
        spread = sum(s * (q - mean) ** 2 for s, q in zip(shares, quotients, strict=True))
        assert pair.value == pytest.approx(mean, rel=1e-10)
        assert pair.stderr == pytest.approx((spread / 2) ** 0.5, rel=1e-8)


class SampledOperator(Operator):
    """Batches of a population with known Hessian: each part has noise of variance 1 / size."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, population: Tensor, sizes: list[int], seed: int) -> None:
        self.shape = tuple(population.shape)
        self.sizes = sizes
        noises = nets.randn(len(sizes), *self.shape, seed=seed)
        self.matrices = [
            population + (noise + noise.T) / size**0.5
            for noise, size in zip(noises, sizes, strict=True)
        ]

    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        for size, matrix in zip(self.sizes, self.matrices, strict=True):
            yield size / sum(self.sizes), matrix @ block


@pytest.mark.parametrize("sizes", [[8] * 20, [8] * 19 + [1]], ids=["equal", "short last"])
def test_sampling_error_covers_the_population(sizes):
    population, vector = planted([3, 2, 1, 0, -1]), nets.randn(5, 1, seed=7)
    truth = float((vector.T @ population @ vector) / (vector.T @ vector))
    inside, runs, student = 0, 1000, 2.093  # the 97.5% point of t with 19 degrees of freedom
    for seed in range(runs):
        (pair,), _ = certify(SampledOperator(population, sizes, seed), vector)
        inside += abs(pair.value - truth) <= student * pair.stderr
    # nominal 95%; 1,000 runs know it to 0.7%, so 92–98% is four errors wide
    assert 0.92 <= inside / runs <= 0.98


def test_certify_scales_vectors_and_judges_them():
    matrix = planted([3, 1])
    values, vectors = torch.linalg.eigh(matrix)
    mixed = (vectors[:, 0] + vectors[:, 1])[:, None]
    pairs, unit = certify(DenseOperator(matrix), torch.cat([7 * vectors, mixed], dim=1))
    torch.testing.assert_close(unit.norm(dim=0), torch.ones(3, dtype=torch.float64))
    assert [pair.value for pair in pairs[:2]] == pytest.approx(values.tolist())
    assert pairs[2].value == pytest.approx(2)  # half way between 1 and 3, residual 1
    assert pairs[2].residual_norm == pytest.approx(1)
    assert pairs[2].residual == pytest.approx(0.5)


def test_residual_of_zero_is_infinite_unless_exact():
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    (pair,), _ = certify(DenseOperator(matrix), torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    assert (pair.value, pair.residual, pair.residual_norm) == (0.0, math.inf, 1.0)
    (pair,), _ = certify(DenseOperator(0 * matrix), torch.ones(2, 1, dtype=torch.float64))
    assert (pair.value, pair.residual, pair.residual_norm) == (0.0, 0.0, 0.0)
