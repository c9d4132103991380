import nets
import numpy as np
import pytest
import torch
from planted import network_like, planted
from torch import Tensor

from ssgd_analysis.curvature import (
    DenseOperator,
    Density,
    HessianOperator,
    eigenpairs,
    spectral_density,
    trace,
)
from ssgd_analysis.curvature.estimates import density
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem


def estimate(matrix: Tensor, seed: int = 0, **options) -> Density:
    return spectral_density(DenseOperator(matrix), generator=nets.generator(seed), **options)


def integral(found: Density, values: np.ndarray) -> float:
    return float(np.trapezoid(values, found.grid))


def smoothed(found: Density, eigenvalues: np.ndarray) -> np.ndarray:
    """(1/P) Σ N(t; λ_i, σ²) on the grid."""
    z = (found.grid[:, None] - eigenvalues) / found.sigma
    return np.exp(-(z**2) / 2).mean(axis=1) / (found.sigma * (2 * np.pi) ** 0.5)


def diagonal(values) -> Tensor:
    return torch.diag(torch.as_tensor(np.asarray(values, dtype=float)))


def rotated(values, seed: int = 0) -> Tensor:
    basis, _ = torch.linalg.qr(nets.randn(len(values), len(values), seed=seed))
    matrix = basis @ diagonal(values) @ basis.T
    return (matrix + matrix.T) / 2


MATRICES = {
    "spread": rotated(np.linspace(-1, 3, 50)),
    "bulk at zero": rotated([10, 5, *np.zeros(60)]),
    "one value": diagonal([2.0] * 6),
    "zero": diagonal([0.0] * 6),
    "1x1": diagonal([-3.0]),
    "2x2": rotated([1.0, -3.0]),
}


@pytest.mark.parametrize("steps", [2, 10, 40])
@pytest.mark.parametrize("name", MATRICES)
def test_integrates_to_one(name, steps):
    found = estimate(MATRICES[name], steps=steps)
    # the grid ends five σ beyond the outermost node: 6e-7 of a Gaussian lies outside
    assert integral(found, found.density) == pytest.approx(1, abs=1e-4)
    assert (found.density >= 0).all()
    assert np.isfinite(found.stderr).all()
    assert found.grid.shape == found.density.shape == found.stderr.shape == (density.GRID,)
    assert (np.diff(found.grid) > 0).all()


@pytest.mark.parametrize("steps", [2, 5, 40])
@pytest.mark.parametrize("seed", range(5))
def test_mean_is_the_trace_over_p(steps, seed):
    matrix = rotated(np.linspace(-1, 3, 50) ** 3)
    found = estimate(matrix, seed, steps=steps, probes=8)
    variance = 2 * float(matrix.square().sum() - matrix.diag().square().sum())
    error = (variance / found.probes) ** 0.5 / 50
    mean = integral(found, found.grid * found.density)
    assert abs(mean - float(matrix.trace()) / 50) < 4 * error + 1e-4 * found.grid[-1]


def test_same_probes_give_the_mean_that_the_trace_gives():
    # Gauss quadrature is exact for the first moment: zᵀHz / P, whatever the steps
    matrix = rotated(np.linspace(-1, 3, 8))
    found = estimate(matrix, seed=4, steps=3, probes=8)
    block = torch.empty(8, 8, dtype=torch.float64)
    block.bernoulli_(0.5, generator=nets.generator(4)).mul_(2).sub_(1)
    quotients = torch.einsum("ib,ij,jb->b", block, matrix, block) / 8
    mean = integral(found, found.grid * found.density)
    assert mean == pytest.approx(float(quotients.mean()), abs=1e-4)


@pytest.mark.parametrize(
    "values", [np.linspace(-1, 3, 30), [*np.zeros(20), 1, 1, 2, 5], [1.0, 2.0]]
)
def test_exact_on_diagonal_matrices(values):
    # every eigenvector is a unit vector, on which a Rademacher probe has weight exactly 1/P
    found = estimate(diagonal(values), steps=len(values))
    truth = smoothed(found, np.asarray(values, dtype=float))
    np.testing.assert_allclose(found.density, truth, atol=1e-8 * truth.max())
    np.testing.assert_allclose(found.stderr, 0, atol=1e-8 * truth.max())


def test_full_runs_agree_with_the_exact_spectrum_within_the_error():
    values = np.array([-1, -0.5, 0, 0.2, 0.4, 1.5, 2, 3])
    found = estimate(rotated(values, seed=3), steps=8, probes=400)
    truth = smoothed(found, values)
    seen = truth > 1e-3 * truth.max()
    away = np.abs(found.density - truth)[seen] / found.stderr[seen]
    assert away.max() < 4.5  # eight independent heights, 4.5 standard errors each
    assert found.stderr[seen].max() < 0.1 * truth.max()


def test_settings_are_reported_and_paid():
    operator = DenseOperator(MATRICES["spread"])
    found = spectral_density(operator, generator=nets.generator(), probes=3, steps=20)
    assert (found.probes, found.steps, operator.products) == (3, 20, 60)
    assert estimate(MATRICES["2x2"], steps=40).steps == 2


def test_little_memory_shortens_the_runs_and_says_so(monkeypatch):
    monkeypatch.setattr(Operator, "basis_bytes", 50 * 8 * 10)  # ten vectors
    found = estimate(MATRICES["spread"], steps=40)
    assert found.steps == 10
    assert integral(found, found.density) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("options", [{"probes": 1}, {"steps": 1}, {"probes": 0}])
def test_too_few_probes_or_steps_are_refused(options):
    with pytest.raises(InputError, match="at least 2"):
        estimate(MATRICES["spread"], **options)


def test_a_network_in_float32():
    case = nets.mlp()
    model, inputs = case.model.float(), case.inputs.float()
    operator = HessianOperator(Problem(model, case.loss, [(inputs, case.targets)]))
    found = spectral_density(operator, generator=nets.generator(), probes=16)
    assert integral(found, found.density) == pytest.approx(1, abs=1e-4)
    hutchinson = trace(operator, generator=nets.generator(1), probes=64)
    mean = integral(found, found.grid * found.density) * operator.shape[0]
    # 16 probes here, 64 there: errors of 2 and 1 times the latter's
    assert abs(mean - hutchinson.value) < 4 * 5**0.5 * hutchinson.stderr


def deflated(values: np.ndarray, k: int, seed: int = 0, **options) -> Density:
    operator = DenseOperator(planted(values))
    spectrum = eigenpairs(operator, k, smallest=False, generator=nets.generator(seed))
    return spectral_density(
        operator,
        generator=nets.generator(seed),
        deflate=spectrum,
        **options,
    )


def test_spikes_are_exact_and_the_bulk_gets_its_own_width():
    values = network_like(300)
    found, plain = deflated(values, 5), estimate(planted(values))
    np.testing.assert_allclose(found.spikes[:5], values[:5], rtol=1e-7)
    assert integral(found, found.density) == pytest.approx(1, abs=1e-4)
    assert found.sigma < 0.1 * plain.sigma  # a hundredth of the bulk, not of the outliers
    for value in values[:5]:  # each stands at its place with the weight 1/P
        near = np.abs(found.grid - value) < 8.5 * found.sigma
        weight = np.trapezoid(found.density[near], found.grid[near])
        assert weight == pytest.approx(1 / 300, rel=1e-4)
        assert found.stderr[near].max() < 1e-6


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_all_or_much_known(count):
    values = np.linspace(-1, 3, 30)
    matrix = planted(values)
    vectors = torch.linalg.eigh(matrix)[1][:, :count]
    found = estimate(matrix, deflate=vectors, steps=29)
    assert integral(found, found.density) == pytest.approx(1, abs=1e-4)
    mean = integral(found, found.grid * found.density)
    assert mean == pytest.approx(1, abs=0.15 if count < 30 else 1e-4)
    assert len(found.spikes) == count


def test_deflated_mean_is_the_trace_over_p():
    values = network_like(300)
    found = deflated(values, 5, probes=30)
    mean = integral(found, found.grid * found.density)
    spread = (2 * np.square(values[5:]).sum() / 30) ** 0.5 / 300
    assert abs(mean - values.mean()) < 4 * spread


SHARED = np.concatenate([np.linspace(-1, -0.5, 40), np.zeros(160), np.linspace(1, 3, 100)])


def test_shares_of_negative_and_near_zero():
    found = estimate(planted(SHARED), probes=20)
    assert found.threshold == pytest.approx(3e-3, rel=1e-6)
    assert found.negative.value == pytest.approx(40 / 300, abs=4 * found.negative.stderr)
    assert found.near_zero.value == pytest.approx(160 / 300, abs=4 * found.near_zero.stderr)
    for share in (found.negative, found.near_zero):
        assert 0 < share.stderr < 0.03
        assert 0 <= share.lowest <= share.low <= share.value <= share.high <= share.highest <= 1


def test_intervals_of_shares_cover():
    values = np.concatenate([np.linspace(-1, -0.5, 10), np.zeros(30), np.linspace(1, 3, 20)])
    found = [estimate(planted(values), seed, probes=6, steps=30) for seed in range(60)]
    for truth, shares in (
        (10 / 60, [one.negative for one in found]),
        (30 / 60, [one.near_zero for one in found]),
    ):
        inside = np.mean([share.low <= truth <= share.high for share in shares])
        assert 0.88 <= inside <= 1  # 95% by Student's t with 5 degrees of freedom


def test_what_nodes_cannot_tell_is_in_the_interval():
    # a continuum through the threshold, and runs too short to resolve it
    values = np.linspace(-1, 3, 400)
    for seed in range(20):
        found = estimate(planted(values), seed, steps=4)
        for share, truth in (
            (found.negative, (values < -found.threshold).mean()),
            (found.near_zero, (np.abs(values) <= found.threshold).mean()),
        ):
            assert share.lowest <= truth <= share.highest
            assert share.highest - share.lowest > 0.2


def test_an_exhausted_run_leaves_nothing_open():
    found = estimate(diagonal([-1.0, 0, 0, 2]), steps=40)
    assert found.steps == 3
    assert found.negative.value == pytest.approx(0.25)
    assert found.near_zero.value == pytest.approx(0.5)
    # but for the probes: a few signs do not show that the matrix is diagonal
    assert found.negative.low < 0.25 < found.negative.high < 0.7


def test_runs_that_do_not_fit_together_go_one_by_one(monkeypatch):
    together = estimate(MATRICES["spread"], steps=10, probes=4)
    # a basis of ten steps, for one run at a time
    monkeypatch.setattr(Operator, "basis_bytes", 50 * 8 * 10)
    alone = estimate(MATRICES["spread"], steps=10, probes=4)
    assert (alone.probes, alone.steps) == (4, 10)
    assert integral(alone, alone.density) == pytest.approx(integral(together, together.density))


def test_vectors_that_are_not_orthonormal_are_refused():
    with pytest.raises(InputError, match="orthonormal"):
        estimate(MATRICES["spread"], deflate=torch.ones(50, 2, dtype=torch.float64))


def crowded(seed: int, size: int = 200) -> np.ndarray:
    """As of a trained network: most eigenvalues crowd at zero, some below, over all scales."""
    draws = np.random.default_rng(seed)
    values = 10 ** draws.uniform(-7, 0, size)
    values[draws.random(size) < draws.uniform(0.05, 0.5)] *= -0.3
    return values


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_intervals_of_shares_hold_where_nodes_cannot_tell(dtype):
    held = {"negative": [], "near_zero": []}
    for seed in range(40):
        values = crowded(seed)
        operator = DenseOperator(planted(values, seed, dtype=dtype))
        spectrum = eigenpairs(operator, 3, generator=nets.generator(seed))
        found = spectral_density(
            operator, generator=nets.generator(seed), deflate=spectrum, steps=25
        )
        truth = {
            "negative": (values < -found.threshold).mean(),
            "near_zero": (np.abs(values) <= found.threshold).mean(),
        }
        for name, share in (("negative", found.negative), ("near_zero", found.near_zero)):
            held[name].append(share.low <= truth[name] <= share.high)
            assert share.lowest <= truth[name] <= share.highest
    # bounds by moments hold always, the probes' part at 95%: two or more of 40 outside are rare
    assert min(sum(each) for each in held.values()) >= 39


def test_eigenvalues_within_rounding_of_the_threshold_are_open():
    # a cluster at the threshold itself: float32 products cannot tell on which side it is
    values = np.r_[1.0, np.full(100, -1e-3 * (1 + 1e-8)), np.linspace(0.3, 0.6, 20)]
    found = estimate(planted(values, dtype=torch.float32), steps=30)
    assert found.negative.low < 0.1
    assert found.negative.high > 100 / 121


def test_vectors_that_are_no_eigenvectors_leave_their_share_open():
    values = np.linspace(-1, 3, 30)
    basis, _ = torch.linalg.qr(nets.randn(30, 6))
    found = estimate(planted(values), deflate=basis, steps=24, probes=30)
    truth = (values < -found.threshold).mean()
    assert found.negative.low <= truth <= found.negative.high
    assert found.negative.high - found.negative.low >= 6 / 30


def test_a_spectrum_deflates_with_its_own_quotients():
    # the largest and, beside them, the smallest: three columns, three quotients
    operator = DenseOperator(planted([-5.0, 1, 2, 3, 4, *np.zeros(15)]))
    spectrum = eigenpairs(operator, 2, generator=nets.generator())
    found = spectral_density(operator, generator=nets.generator(), deflate=spectrum)
    assert found.spikes == pytest.approx([4, 3, -5])


@pytest.mark.slow
def test_wilson_is_never_shorter_than_the_spread_of_the_probes():
    # one eigenvector of 100: four probes see none of it in one case out of sixteen, or all
    matrix = torch.zeros(100, 100, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    found = [
        estimate(matrix + torch.diag(torch.arange(100.0).double()), seed) for seed in range(40)
    ]
    assert all(one.negative.low <= 0.01 <= one.negative.high for one in found)
