import math
import time

import nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import DiagonalOperator, MeanOperator, network_like, planted
from torch import Tensor

from ssgd_analysis.curvature import (
    DenseOperator,
    HessianOperator,
    Trace,
    eigenpairs,
    layer_traces,
    trace,
)
from ssgd_analysis.curvature.estimates.deflation import Deflation, deflation
from ssgd_analysis.curvature.estimates.hutchinson import Hutchinson
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def symmetric(size: int, seed: int = 0) -> Tensor:
    matrix = nets.randn(size, size, seed=seed)
    return matrix + matrix.T + torch.diag(torch.arange(size, dtype=torch.float64))


def estimate(matrix: Tensor, seed: int = 0, probes: int = 32, **options) -> Trace:
    return trace(DenseOperator(matrix), generator=nets.generator(seed), probes=probes, **options)


def variance_of_a_probe(matrix: Tensor) -> float:
    """2 (‖H‖²_F − Σ H_ii²)."""
    return 2 * float(matrix.square().sum() - matrix.diag().square().sum())


def test_unbiased_with_an_honest_error():
    matrix, runs, probes = symmetric(40), 300, 32
    found = [estimate(matrix, seed, probes) for seed in range(runs)]
    values = torch.tensor([one.value for one in found], dtype=torch.float64)
    errors = torch.tensor([one.stderr for one in found], dtype=torch.float64)
    truth, theory = float(matrix.trace()), (variance_of_a_probe(matrix) / probes) ** 0.5
    assert bool(((values - truth).abs() <= 5 * errors).all())
    # the mean of 300 runs knows the bias to theory / √300
    assert abs(float(values.mean()) - truth) < 4 * theory / runs**0.5
    # a variance from 31 degrees of freedom scatters by √(2/31), its mean over 300 runs by 1.5%
    assert float(errors.square().mean()) == pytest.approx(theory**2, rel=0.06)
    assert float(values.var()) == pytest.approx(theory**2, rel=0.33)  # 4 √(2/299)
    inside = float(((values - truth).abs() <= 2.04 * errors).double().mean())
    assert 0.90 <= inside <= 0.99  # 95% by Student's t; 300 runs know it to 1.3%


@given(values=st.lists(NUMBERS, min_size=1, max_size=20), probes=st.integers(2, 20))
@PROPERTY
def test_exact_on_diagonal_matrices(values, probes):
    matrix = torch.diag(torch.tensor(values, dtype=torch.float64))
    found = estimate(matrix, probes=probes)
    rounding = 1e-12 * (1 + sum(abs(value) for value in values))
    assert abs(found.value - sum(values)) <= rounding
    assert found.stderr <= rounding
    assert found.probes == probes


@given(a=NUMBERS, b=NUMBERS, c=NUMBERS, seed=st.integers(0, 2**31))
@PROPERTY
def test_two_by_two_probes_take_two_values(a, b, c, seed):
    # zᵀHz = a + c ± 2b: two probes give the mean and the difference of such values
    found = estimate(torch.tensor([[a, b], [b, c]], dtype=torch.float64), seed, probes=2)
    steps = (found.value - (a + c), found.stderr)
    size = 1e-12 * (1 + abs(a) + abs(b) + abs(c))
    equal = abs(abs(steps[0]) - 2 * abs(b)) <= size and steps[1] <= size
    opposite = abs(steps[0]) <= size and abs(steps[1] - 2 * abs(b)) <= size
    assert equal or opposite


def test_probes_are_fair():
    # all ones: zᵀHz = (Σ z)², whose mean P would grow with the square of any bias of the signs
    found = estimate(torch.ones(400, 400, dtype=torch.float64), probes=4000)
    assert abs(found.value - 400) <= 5 * found.stderr
    assert found.stderr < 10


@pytest.mark.parametrize("probes", [2, 7, 8, 9, 33])
def test_spends_one_product_a_probe(probes):
    operator = DenseOperator(symmetric(6))
    assert trace(operator, generator=nets.generator(), probes=probes).probes == probes
    assert operator.products == probes


def test_a_seed_repeats_and_another_differs():
    matrix = symmetric(10)
    assert estimate(matrix, 1) == estimate(matrix, 1)
    assert estimate(matrix, 1) != estimate(matrix, 2)


@pytest.mark.parametrize("probes", [1, 0, -3])
def test_too_few_probes_are_refused(probes):
    with pytest.raises(InputError, match="at least 2 probes"):
        estimate(symmetric(3), probes=probes)


@pytest.mark.parametrize("name", nets.CASES)
def test_hessians_of_networks(name):
    case = nets.CASES[name]()
    found = trace(HessianOperator(Problem(*case.problem)), generator=nets.generator(), probes=128)
    assert abs(found.value - float(reference.hessian(case).trace())) <= 5 * found.stderr
    theory = (variance_of_a_probe(reference.hessian(case)) / 128) ** 0.5
    assert found.stderr == pytest.approx(theory, rel=0.5)  # 128 probes, heavy-tailed squares


METHODS = ("hutchinson", "hutch++", "xtrace")


def runs(matrix: Tensor, count: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """Errors and standard errors of many seeds."""
    found = [estimate(matrix, seed, **options) for seed in range(count)]
    errors = [one.value - float(matrix.trace()) for one in found]
    return np.array(errors), np.array([one.stderr for one in found])


def spectra() -> dict[str, np.ndarray]:
    return {
        "network": network_like(200),
        "power": 10 / np.arange(1, 201) ** 2,
        "both signs": np.r_[np.logspace(1, -3, 100), -np.logspace(0, -3, 100)],
        "flat": np.random.default_rng(0).normal(1, 1, 200),
    }


@pytest.mark.parametrize("name", spectra())
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_unbiased_and_covers(method, name):
    errors, stderrs = runs(planted(spectra()[name]), 150, probes=24, method=method)
    assert abs(errors.mean()) < 4 * errors.std() / 150**0.5
    assert (np.abs(errors) <= 5 * stderrs).mean() >= 0.99
    # 7 to 23 degrees of freedom, samples that share a sketch: a wide band around 95%
    assert (np.abs(errors) <= 2.4 * stderrs).mean() >= 0.88
    assert 0.6 < (stderrs**2).mean() ** 0.5 / errors.std() < 1.6


# root mean square error over Hutchinson's at equal products; on a flat spectrum the theory is
# the square root of the products left to average: 1, √3 and √2. 150 runs know a ratio to 8%.
WORST = {"hutch++": {"flat": 3**0.5}, "xtrace": {"flat": 2**0.5}}


@pytest.mark.parametrize("name", spectra())
@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_never_worse_than_hutchinson_but_on_flat_spectra(method, name):
    matrix = planted(spectra()[name])
    errors, _ = runs(matrix, 150, probes=24, method=method)
    plain, _ = runs(matrix, 150, probes=24)
    ratio = float(np.sqrt((errors**2).mean() / (plain**2).mean()))
    assert ratio < 1.25 * WORST[method].get(name, 1)
    if name == "power":
        assert ratio < 0.3


@pytest.mark.parametrize("name", spectra())
def test_deflation_is_never_worse_at_equal_products(name):
    # the eigenvectors are known from the spectrum that was asked for: no product of the trace's
    operator = DenseOperator(planted(spectra()[name]))
    spectrum = eigenpairs(operator, 5, smallest=False, generator=nets.generator())
    options = {"probes": 16, "deflate": spectrum}
    errors, stderrs = runs(operator.matrix, 150, **options)
    plain, _ = runs(operator.matrix, 150, probes=16)
    assert abs(errors.mean()) < 4 * errors.std() / 150**0.5
    assert (np.abs(errors) <= 5 * stderrs).mean() >= 0.99
    ratio = float(np.sqrt((errors**2).mean() / (plain**2).mean()))
    assert ratio < {"network": 0.3, "power": 0.3, "both signs": 0.8, "flat": 1.2}[name]


@pytest.mark.parametrize("method", METHODS)
def test_deflation_is_exact_for_any_directions(method):
    # tr H = Σ uᵀHu + the rest's, eigenvectors or not
    matrix = planted(np.linspace(-1, 3, 30))
    basis, _ = torch.linalg.qr(nets.randn(30, 4))
    errors, _ = runs(matrix, 150, probes=12, deflate=basis, method=method)
    assert abs(errors.mean()) < 4 * errors.std() / 150**0.5
    found = estimate(matrix, probes=12, deflate=basis, method=method)
    assert (found.probes, found.products, found.method) == (12, 16, method)
    assert math.isclose(
        estimate(matrix, deflate=torch.linalg.qr(nets.randn(30, 30))[0]).value, 30, rel_tol=1e-9
    )  # all directions known


def test_directions_that_are_not_orthonormal_are_refused():
    with pytest.raises(InputError, match="orthonormal"):
        estimate(symmetric(5), deflate=torch.ones(5, 2, dtype=torch.float64))


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20),
    seed=st.integers(0, 100),
)
@PROPERTY
def test_sketches_are_exact_in_few_dimensions(method, values, seed):
    found = estimate(planted(values, seed), seed, probes=20, method=method)
    size = 1e-12 * (1 + sum(abs(value) for value in values))
    assert abs(found.value - sum(values)) <= size
    assert found.stderr == 0
    assert found.products == len(values)


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sketches_are_exact_on_low_rank(method, rank, dtype):
    values = np.zeros(60)
    values[:rank] = [7, -2, 1][:rank]
    found = estimate(planted(values, dtype=dtype), probes=24, method=method)
    rounding = 1e-4 if dtype == torch.float32 else 1e-10
    assert found.value == pytest.approx(values.sum(), abs=rounding)
    assert found.stderr <= rounding


@pytest.mark.parametrize("method", METHODS)
def test_a_tolerance_goes_on_until_it_is_met(method):
    matrix = planted(np.linspace(0, 1, 300))
    found = estimate(matrix, probes=16, method=method, tol=0.01)
    assert found.stderr <= 0.01 * found.value
    assert 16 < found.probes == found.products < 300
    tight = estimate(matrix, probes=16, method=method, tol=1e-9, max_probes=64)
    assert tight.probes == 64
    assert tight.stderr > 1e-9 * tight.value


def test_two_lucky_probes_do_not_stop_it():
    # zᵀHz takes two values, 2 ± 2: three times out of four eight probes show both, but a
    # standard error from a few probes that agree is far too small
    matrix = torch.ones(2, 2, dtype=torch.float64)
    stops = [estimate(matrix, seed, probes=2, tol=0.1).probes for seed in range(50)]
    assert min(stops) >= 16
    errors = [abs(estimate(matrix, seed, probes=2, tol=0.1).value - 2) for seed in range(50)]
    assert np.mean(np.array(errors) <= 2 * 0.1 * 2) >= 0.9


@pytest.mark.parametrize("tol", [0, -1, math.nan])
def test_a_tolerance_that_is_none_is_refused(tol):
    with pytest.raises(InputError, match="tolerance"):
        estimate(symmetric(3), tol=tol)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match=r"hutch\+\+"):
        estimate(symmetric(3), method="hutch")


class SlowOperator(DiagonalOperator):
    def _parts(self, block: Tensor):
        time.sleep(0.005 * block.shape[1])
        yield from super()._parts(block)


def test_the_deadline_ends_it():
    began = time.monotonic()
    found = trace(
        SlowOperator(np.ones(50)), generator=nets.generator(), probes=1000, deadline=began + 0.3
    )
    assert time.monotonic() - began < 0.5
    assert 8 <= found.probes < 100


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deflated", [False, True])
def test_sampling_error_is_the_spread_of_the_batches_traces(method, deflated):
    # as many probes as dimensions make the probes' own part small
    shares = [0.3, 0.3, 0.2, 0.2]
    matrices = [planted([3, 2, 1, *np.zeros(9)], seed) * (seed + 1) for seed in range(4)]
    operator = MeanOperator(matrices, shares)
    vectors = torch.linalg.eigh(operator.dense())[1][:, -3:] if deflated else None
    found = trace(operator, generator=nets.generator(), probes=10, method=method, deflate=vectors)
    traces = np.array([6.0, 12, 18, 24])
    mean = np.dot(shares, traces)
    truth = (np.dot(shares, (traces - mean) ** 2) / 3) ** 0.5
    assert found.sampling_stderr == pytest.approx(truth, rel=0.6 if not deflated else 0.3)
    assert trace(DenseOperator(matrices[0]), generator=nets.generator()).sampling_stderr is None


def test_sampling_error_covers_the_population():
    # batches of 4 examples x xᵀ with covariance Σ: the population's trace is tr Σ
    scale = torch.linspace(2, 0.5, 12, dtype=torch.float64)
    inside, count, student = 0, 300, 2.093
    for seed in range(count):
        draws = nets.randn(20, 4, 12, seed=seed) * scale
        operator = MeanOperator(draws.transpose(1, 2) @ draws / 4)
        found = trace(operator, generator=nets.generator(seed), probes=100)
        inside += abs(found.value - float((scale**2).sum())) <= student * found.sampling_stderr
    assert 0.90 <= inside / count <= 0.99


# --- the tolerance is the trace's ---

CANCELLING = np.r_[30.0, 20, 10, -np.linspace(0.2, 0.3, 200)]  # 60 known, −50 to estimate
LITTLE = np.r_[30.0, 20, 10, np.linspace(0.001, 0.003, 200)]  # 60 known, 0.4 to estimate


@pytest.mark.parametrize("tol", [0.05, 0.01])
def test_a_tolerance_is_relative_to_the_whole_trace(tol):
    operator = DenseOperator(planted(CANCELLING))
    spectrum = eigenpairs(operator, 3, generator=nets.generator())
    truth, away = float(CANCELLING.sum()), []
    for seed in range(20):
        found = trace(
            operator, generator=nets.generator(seed), deflate=spectrum, tol=tol, max_probes=4000
        )
        assert found.stop == "tolerance"
        assert found.stderr <= tol * abs(found.value)
        away.append(abs(found.value - truth) / truth)
    # relative standard errors of at most tol
    assert np.mean(np.square(away)) ** 0.5 <= 1.3 * tol


def test_a_small_rest_needs_no_more_probes():
    operator = DenseOperator(planted(LITTLE))
    spectrum = eigenpairs(operator, 3, generator=nets.generator())
    found = trace(operator, generator=nets.generator(), deflate=spectrum, tol=0.01, probes=16)
    assert (found.stop, found.probes) == ("tolerance", 16)
    assert found.value == pytest.approx(LITTLE.sum(), rel=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_a_trace_of_zero_says_that_the_tolerance_is_not_met(method):
    values = np.r_[np.linspace(1, 2, 150), -np.linspace(1, 2, 150)]
    found = estimate(planted(values), probes=16, method=method, tol=0.01, max_probes=64)
    assert found.stop == "max_probes"
    assert found.probes == 64


# --- what is known comes with its own quotients ---


def test_a_spectrum_cannot_be_deflated_by_the_wrong_quotients():
    # trace −4: the k largest alone, or with the smallest, and never one's quotients for another
    values = [3.0, 2, 1, -10, *np.zeros(20)]
    operator = DenseOperator(planted(values))
    spectrum = eigenpairs(operator, 3, generator=nets.generator())
    assert spectrum.quotients.values.shape[1] == spectrum.vectors.shape[1] + 1
    for known in (spectrum, spectrum.vectors, deflation(operator, spectrum)):
        found = trace(operator, generator=nets.generator(), deflate=known)
        assert abs(found.value + 4) <= 5 * found.stderr + 1e-9
    with pytest.raises(InputError, match="4 quotients"):
        Deflation(spectrum.vectors, spectrum.quotients, np.zeros(3))
    with pytest.raises(TypeError):
        trace(operator, generator=nets.generator(), known=spectrum.quotients)


def test_a_spectrum_of_another_operator_is_refused():
    spectrum = eigenpairs(DenseOperator(symmetric(6)), 2, generator=nets.generator())
    with pytest.raises(InputError, match="shape"):
        trace(DenseOperator(symmetric(7)), generator=nets.generator(), deflate=spectrum)


# --- the interval holds where the standard error alone does not ---


@pytest.mark.parametrize("probes", [4, 8, 32])
@pytest.mark.parametrize("sign", [1, -1])
def test_intervals_hold_for_one_dominant_eigenvalue(probes, sign):
    # the samples are χ² with one degree of freedom: the worst skewness that there is
    vector = nets.randn(120)
    matrix = sign * torch.outer(vector, vector) / vector.square().sum()
    found = [estimate(matrix, seed, probes) for seed in range(400)]
    held = np.mean([one.low <= sign <= one.high for one in found])
    student = {4: 3.182, 8: 2.365, 32: 2.040}[probes]
    plain = np.mean([abs(one.value - sign) <= student * one.stderr for one in found])
    assert held >= 0.95 - 2 * (0.95 * 0.05 / 400) ** 0.5
    assert plain < held
    assert probes > 8 or plain < 0.9  # Student's t alone misses


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", spectra())
def test_intervals_hold(method, name):
    matrix = planted(spectra()[name])
    found = [estimate(matrix, seed, 16, method=method) for seed in range(200)]
    held = np.mean([one.low <= float(matrix.trace()) <= one.high for one in found])
    assert held >= 0.95 - 2 * (0.95 * 0.05 / 200) ** 0.5


def test_the_scatter_of_products_is_the_variance_of_a_probe():
    matrix = symmetric(40)
    truth = variance_of_a_probe(matrix)
    estimates = []
    for seed in range(200):
        operator = DenseOperator(matrix)
        estimator = Hutchinson(operator, deflation(operator, None), nets.generator(seed))
        estimator.grow(5)
        estimates.append(estimator.scatter.variance())
    assert np.mean(estimates) == pytest.approx(truth, rel=4 * np.std(estimates) / truth / 200**0.5)


def test_the_layers_traces_hold_in_their_intervals():
    matrix, places = planted(network_like(60)), [slice(0, 20), slice(20, 60)]
    found = [
        layer_traces(DenseOperator(matrix), places, generator=nets.generator(seed), probes=8)
        for seed in range(200)
    ]
    for index, place in enumerate(places):
        truth = float(matrix.diag()[place].sum())
        held = np.mean([one[index].low <= truth <= one[index].high for one in found])
        assert held >= 0.95 - 2 * (0.95 * 0.05 / 200) ** 0.5
