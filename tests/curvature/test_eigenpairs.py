import math
import time
from collections.abc import Iterator

import nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import DiagonalOperator, MeanOperator, network_like, planted
from scipy.sparse.linalg import eigsh
from torch import Tensor

from ssgd_analysis.curvature import DenseOperator, HessianOperator, Spectrum, eigenpairs
from ssgd_analysis.curvature.eigen import krylov
from ssgd_analysis.curvature.eigen.eigenpairs import block_eigenpairs, certify
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=30)


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
    monkeypatch.setattr(Operator, "basis_bytes", 250 * 8 * 30)  # 30 vectors
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
    spectrum = eigenpairs(
        HessianOperator(Problem(*case.problem)), 3, tol=1e-8, generator=nets.generator()
    )
    assert_honest(dense, spectrum)
    truth = torch.linalg.eigvalsh(dense)
    found = [pair.value for pair in spectrum.largest]
    np.testing.assert_allclose(found, truth[-3:].flip(0), rtol=1e-8, atol=1e-12)
    assert spectrum.smallest.value == pytest.approx(float(truth[0]), rel=1e-8, abs=1e-12)


def test_single_batch_has_no_sampling_error():
    case = nets.mlp()
    operator = HessianOperator(Problem(case.model, case.loss, case.batches(nets.N)))
    spectrum = eigenpairs(operator, 1, generator=nets.generator())
    assert spectrum.largest[0].stderr is None
    assert spectrum.smallest.stderr is None


def test_sampling_error_is_that_of_the_batch_quotients():
    case = nets.mlp()
    operator = HessianOperator(Problem(*case.problem))
    spectrum = eigenpairs(operator, 2, generator=nets.generator())
    for pair, vector in zip(spectrum.largest, spectrum.vectors.T, strict=True):
        singles = [nets.Case(case.model, case.loss, x, y) for x, y in case.batches()]
        quotients = [float(vector @ reference.hessian(single) @ vector) for single in singles]
        shares = [4 / 11, 4 / 11, 3 / 11]
        mean = sum(s * q for s, q in zip(shares, quotients, strict=True))
        spread = sum(s * (q - mean) ** 2 for s, q in zip(shares, quotients, strict=True))
        assert pair.value == pytest.approx(mean, rel=1e-10)
        assert pair.stderr == pytest.approx((spread / 2) ** 0.5, rel=1e-8)


def sampled(population: Tensor, sizes: list[int], seed: int) -> MeanOperator:
    """Batches of a population with known Hessian: each part has noise of variance 1 / size."""
    noises = nets.randn(len(sizes), *population.shape, seed=seed)
    matrices = [
        population + (noise + noise.T) / size**0.5
        for noise, size in zip(noises, sizes, strict=True)
    ]
    return MeanOperator(matrices, [size / sum(sizes) for size in sizes])


@pytest.mark.parametrize("sizes", [[8] * 20, [8] * 19 + [1]], ids=["equal", "short last"])
def test_sampling_error_covers_the_population(sizes):
    population, vector = planted([3, 2, 1, 0, -1]), nets.randn(5, 1, seed=7)
    truth = float((vector.T @ population @ vector) / (vector.T @ vector))
    inside, runs, student = 0, 1000, 2.093  # the 97.5% point of t with 19 degrees of freedom
    for seed in range(runs):
        (pair,), _ = certify(sampled(population, sizes, seed), vector)
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


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=40),
    k=st.integers(1, 6),
    by=st.sampled_from(["value", "magnitude"]),
    tol=st.sampled_from([1e-2, 1e-6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    budget=st.sampled_from([1, 7, 1000]),
)
@PROPERTY
def test_an_eigenvalue_lies_within_the_residual(values, k, by, tol, dtype, budget):
    matrix = planted(values, dtype=dtype)
    spectrum = solve(matrix, k, by=by, tol=tol, max_products=budget)
    truth = torch.linalg.eigvalsh(matrix.double())
    eps = float(torch.finfo(dtype).eps)
    rounding = 40 * eps * (float(truth.abs().max()) + 1e-300)
    for pair in (*spectrum.largest, spectrum.smallest):
        assert float((truth - pair.value).abs().min()) <= pair.residual_norm + rounding


def ranked(values, k: int, by: str = "value") -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[np.argsort(-np.abs(values) if by == "magnitude" else -values, kind="stable")][:k]


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("smallest", [True, False])
def test_by_magnitude_both_signs(k, smallest):
    values = [-9, 7, -5, 4, -3, *np.linspace(-1, 1, 80)]
    spectrum = solve(planted(values), k, by="magnitude", smallest=smallest, tol=1e-6)
    found = [pair.value for pair in spectrum.largest]
    np.testing.assert_allclose(found, ranked(values, k, "magnitude"), rtol=1e-6)
    assert spectrum.check.complete
    assert spectrum.check.bound >= abs(ranked(values, k + 1, "magnitude")[k])
    if smallest:
        assert spectrum.smallest.value == pytest.approx(-9, rel=1e-6)


def test_an_unknown_order_is_refused():
    with pytest.raises(InputError, match="magnitude"):
        solve(planted([1, 2]), 1, by="size")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_copies_are_found(count, dtype, seed):
    bulk = np.random.default_rng(seed).normal(0, 0.3, 300)
    values = np.concatenate([[5] * count, [3] * 2, bulk])
    operator = DiagonalOperator(values, dtype)
    spectrum = eigenpairs(operator, count + 2, smallest=False, generator=nets.generator(seed))
    found = [pair.value for pair in spectrum.largest]
    np.testing.assert_allclose(found, values[: count + 2], rtol=1e-4)
    overlaps = spectrum.vectors.T @ spectrum.vectors
    torch.testing.assert_close(
        overlaps, torch.eye(count + 2, dtype=dtype), atol=1e-4, rtol=0
    )  # copies are different vectors
    assert spectrum.check.complete
    assert bulk.max() <= spectrum.check.bound < 3.05
    assert spectrum.products == operator.products


def test_without_the_check_copies_are_missed():
    # so that the test above proves something
    values = [5, 5, 4, *np.linspace(-1, 1, 200)]
    options = {"smallest": False, "generator": nets.generator()}
    blind = eigenpairs(DiagonalOperator(values), 2, check=False, **options)
    assert blind.check is None
    assert [pair.value for pair in blind.largest] == pytest.approx([5, 4])
    checked = eigenpairs(DiagonalOperator(values), 2, **options)
    assert [pair.value for pair in checked.largest] == pytest.approx([5, 5])


def test_the_bound_holds_as_often_as_it_says():
    values = np.array([2.2, 2.2, 2.1, *np.linspace(-1, 2, 60)])
    broken = 0
    for seed in range(100):
        operator = DiagonalOperator(values)
        spectrum = eigenpairs(operator, 1, smallest=False, generator=nets.generator(seed))
        assert spectrum.check.complete
        assert spectrum.check.bound < 2.2 * 1.05
        broken += spectrum.check.bound < 2.2
    assert broken <= 4  # 1% of 100; more than 4 has a probability of 0.3%


@pytest.mark.parametrize("name", ["outliers", "copies", "edge"])
@pytest.mark.parametrize("k", [1, 5])
def test_products_beside_arpack(name, k):
    values = {
        "outliers": network_like(2000),
        "copies": [*[10] * 5, *network_like(2000)[5:]],
        "edge": [2.2, 2.1, 2.05, *np.linspace(-1, 2, 1000)],
    }[name]
    ours, theirs = 0, 0
    for seed in range(3):
        operator = DiagonalOperator(values)
        spectrum = eigenpairs(operator, k, smallest=False, generator=nets.generator(seed))
        found = [pair.value for pair in spectrum.largest]
        np.testing.assert_allclose(found, ranked(values, k), rtol=1e-4)
        ours += operator.products
        operator = DiagonalOperator(values)
        start = np.random.default_rng(seed).normal(size=len(values))
        eigsh(operator.to_scipy(), k, which="LA", tol=1e-4, v0=start, return_eigenvectors=False)
        theirs += operator.products + k  # a certificate of each value costs it k more
    # the check's price where neighbours crowd: a third; ARPACK makes none and misses copies
    assert ours <= theirs * (1.5 if name == "edge" else 1.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [1, 5])
def test_a_close_start_saves_products(k, dtype):
    values = [*(3 - 0.1 * np.arange(10)), *np.linspace(-0.5, 1.9, 290)]
    matrix = planted(values, dtype=dtype)
    noise = nets.randn(300, 300, seed=3).to(dtype)
    changed = matrix + 1e-5 * (noise + noise.T)
    before = solve(matrix, k, smallest=False)
    options = {"smallest": False, "check": False}
    cold = solve(changed, k, **options)
    warm = solve(changed, k, start=before.vectors, **options)
    truth = torch.linalg.eigvalsh(changed.double()).flip(0)[:k]
    found = [pair.value for pair in warm.largest]
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    search = k + 1  # certificates, which both pay
    assert warm.products - search <= 0.5 * (cold.products - search)
    checked = solve(changed, k, smallest=False, start=before.vectors)
    assert checked.products < solve(changed, k, smallest=False).products


def starts(vectors: Tensor) -> dict[str, Tensor]:
    """Useful and useless starts for the eigenvectors (ascending) of a matrix."""
    n = len(vectors)
    return {
        "one vector": vectors[:, -1],
        "exact": vectors[:, -3:],
        "the wrong end": vectors[:, :4],
        "the middle": vectors[:, n // 2 : n // 2 + 4],
        "the next ones": vectors[:, -6:-3],
        "zero": torch.zeros(n, 2),
        "not a number": torch.full((n, 2), math.nan),
        "copies": vectors[:, -1:].repeat(1, 4),
        "dependent": torch.cat([vectors[:, -2:], vectors[:, -2:].sum(dim=1, keepdim=True)], 1),
        "many": nets.randn(n, 50, seed=5),
        "more than all": nets.randn(n, n + 5, seed=5),
        "not orthonormal": vectors[:, -3:] @ nets.randn(3, 3, seed=5),
        "tiny": 1e-30 * vectors[:, -3:],
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", starts(torch.eye(100).double()))
def test_no_start_gives_a_wrong_answer(name, dtype):
    values = np.array([5, 5, 4, 3, 2.5, 2.4, *np.linspace(-1, 1, 94)])
    matrix = planted(values)
    start = starts(torch.linalg.eigh(matrix)[1])[name].to(dtype)
    for by in ("value", "magnitude"):
        spectrum = solve(matrix.to(dtype), 3, start=start, by=by, tol=1e-5)
        assert_honest(matrix.to(dtype), spectrum)
        np.testing.assert_allclose([p.value for p in spectrum.largest], [5, 5, 4], rtol=1e-5)
        assert spectrum.smallest.value == pytest.approx(-1, rel=1e-3)
        assert spectrum.check.complete


def test_a_start_of_another_length_is_refused():
    with pytest.raises(InputError, match="length"):
        solve(planted([1, 2, 3]), 1, start=torch.ones(2))


class SlowOperator(DiagonalOperator):
    def _parts(self, block: Tensor) -> Iterator[tuple[float, Tensor]]:
        time.sleep(0.01 * block.shape[1])
        yield from super()._parts(block)


def test_the_deadline_is_kept_and_said():
    operator, limit = SlowOperator(np.linspace(-1, 1, 2000)), 0.5
    began = time.monotonic()
    spectrum = eigenpairs(
        operator, 3, tol=1e-10, generator=nets.generator(), deadline=began + limit
    )
    assert time.monotonic() - began < 2 * limit
    assert spectrum.stop == "time"
    assert not spectrum.check.complete
    for pair in spectrum.largest:
        assert abs(np.linspace(-1, 1, 2000) - pair.value).min() <= pair.residual_norm


def test_a_deadline_that_has_passed_still_certifies():
    spectrum = solve(planted(np.linspace(-1, 1, 50)), 2, deadline=time.monotonic() - 1)
    assert spectrum.stop == "time"
    assert_honest(planted(np.linspace(-1, 1, 50)), spectrum)


class Notes:
    """A progress display that remembers."""

    def __init__(self) -> None:
        self.labels: list[tuple] = []
        self.steps, self.notes = 0, []

    def start(self, label: str, total: int | None = None) -> None:
        self.labels.append((label, total))

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps
        self.notes.append(note)

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def test_progress_tells_residuals():
    notes = Notes()
    spectrum = solve(planted(network_like(200)), 2, progress=notes, max_products=500)
    assert notes.labels == [("eigenvalues", 500)]
    assert notes.steps == spectrum.products - 3
    assert "λ1 9, looking for missed copies" in notes.notes
    assert any("residual" in note and note.endswith("of 1e-04") for note in notes.notes)


BLOCKS = {
    "first": [9, 9, 5, *np.linspace(-1, 1, 40)],
    "one": [-2.5],
    "zero": [0] * 5,
    "last": [*np.linspace(-3, 2, 60)],
}


def block_diagonal(dtype: torch.dtype = torch.float64) -> tuple[Tensor, list[slice]]:
    matrices = [planted(values, seed, dtype) for seed, values in enumerate(BLOCKS.values())]
    ends = np.cumsum([len(matrix) for matrix in matrices])
    slices = [slice(int(end) - len(m), int(end)) for end, m in zip(ends, matrices, strict=True)]
    return torch.block_diag(*matrices), slices


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("smallest", [True, False])
def test_blocks_in_lockstep(dtype, smallest):
    matrix, slices = block_diagonal(dtype)
    operator = MeanOperator([matrix * 0.5, matrix * 1.5])
    spectra = block_eigenpairs(
        operator, slices, 2, generator=nets.generator(), tol=1e-6, smallest=smallest
    )
    for values, place, spectrum in zip(BLOCKS.values(), slices, spectra, strict=True):
        own = matrix[place, place]
        assert_honest(own, spectrum)
        found = [pair.value for pair in spectrum.largest]
        np.testing.assert_allclose(found, ranked(values, 2), rtol=1e-5, atol=1e-6)
        assert spectrum.vectors.shape == (len(values), len(found))
        if smallest:
            assert spectrum.smallest.value == pytest.approx(min(values), rel=1e-4, abs=1e-6)
        for pair in spectrum.largest:  # parts are a half and three halves: λ ± λ / 2
            assert pair.stderr == pytest.approx(abs(pair.value) / 2, rel=1e-5, abs=1e-9)
    # one sweep a round for all: the cost is the slowest block's, not the sum
    slowest = max(spectrum.products for spectrum in spectra)
    assert slowest <= operator.products <= slowest + 3
    assert operator.products < 0.7 * sum(spectrum.products for spectrum in spectra)


def test_a_block_starts_from_its_part_of_the_start():
    matrix, slices = block_diagonal()
    operator = DenseOperator(matrix)
    cold = block_eigenpairs(
        operator, slices, 1, generator=nets.generator(), smallest=False, check=False
    )
    start = torch.zeros(len(matrix), 1, dtype=torch.float64)
    for place, spectrum in zip(slices, cold, strict=True):
        start[place] = spectrum.vectors
    warm = block_eigenpairs(
        operator, slices, 1, generator=nets.generator(), smallest=False, check=False, start=start
    )
    assert all(spectrum.products == 3 for spectrum in warm)  # a product and two certificates


def test_quotients_of_batches_are_kept():
    matrices = [planted([3, 2, 1], seed) for seed in range(4)]
    spectrum = eigenpairs(MeanOperator(matrices), 2, generator=nets.generator())
    vectors = torch.cat([spectrum.vectors, spectrum.smallest_vector[:, None]], dim=1)
    truth = [(vectors * (matrix @ vectors)).sum(dim=0).tolist() for matrix in matrices]
    np.testing.assert_allclose(spectrum.quotients.values, truth, rtol=1e-10)
    pairs = [*spectrum.largest, spectrum.smallest]
    np.testing.assert_allclose(spectrum.quotients.mean(), [p.value for p in pairs], rtol=1e-10)
