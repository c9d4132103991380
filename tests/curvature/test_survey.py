import time

import nets
import numpy as np
import pytest
import reference
import torch
from planted import MeanOperator, network_like, planted

from ssgd_analysis.curvature import DenseOperator, HessianOperator, Survey, survey
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem


def check_against(found: Survey, matrix: torch.Tensor, k: int) -> None:
    """Every number agrees with the dense truth within its error."""
    truth = torch.linalg.eigvalsh(matrix.double()).numpy()[::-1]
    rounding = 1e-5 * np.abs(truth).max() if matrix.dtype == torch.float32 else 1e-10
    for pair, value in zip(found.spectrum.largest, truth[:k], strict=True):
        assert abs(pair.value - value) <= pair.residual_norm + rounding
    smallest = found.spectrum.smallest
    assert abs(smallest.value - truth[-1]) <= smallest.residual_norm + rounding
    assert abs(found.trace.value - truth.sum()) <= 5 * found.trace.stderr + 1e2 * rounding
    density, grid = found.density.density, found.density.grid
    assert float(np.trapezoid(density, grid)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_everything_agrees_and_no_product_is_made_twice(k, dtype):
    matrix = planted(network_like(300), dtype=dtype)
    operator = DenseOperator(matrix)
    found = survey(operator, k, probes=20, density_probes=4, density_steps=25)
    check_against(found, matrix, k)
    assert found.products == operator.products == found.spectrum.products + 4 * 25 + (20 - 4)
    assert (found.trace.probes, found.density.probes, found.density.steps) == (20, 4, 25)
    assert found.spectrum.check.complete


def test_density_has_the_known_eigenvalues_as_spikes_and_the_traces_mean():
    values = network_like(300)
    found = survey(DenseOperator(planted(values)), 5, probes=40, density_probes=40)
    np.testing.assert_allclose(found.density.spikes, [*values[:5], values[-1]], rtol=1e-6)
    mean = np.trapezoid(found.density.grid * found.density.density, found.density.grid)
    # the same probes; the density normalises each, the trace does not
    assert abs(mean * 300 - found.trace.value) < 0.5 * found.trace.stderr
    share = (values < -found.density.threshold).mean()
    assert found.density.negative.lowest <= share <= found.density.negative.highest


def test_deflation_pays():
    matrix = planted(network_like(300))
    # the bulk is 1% of the outliers: so is the error
    free = 2 * float((matrix**2).sum() - (matrix.diag() ** 2).sum())
    found = survey(DenseOperator(matrix), 5, probes=20)
    assert found.trace.stderr < 0.2 * (free / 20) ** 0.5


def test_batches_give_the_sampling_errors():
    matrices = torch.stack([planted(network_like(60), seed) * (seed + 1) for seed in range(4)])
    operator = MeanOperator(matrices)
    found = survey(operator, 3, probes=50, density_steps=10)
    check_against(found, operator.dense(), 3)
    traces = torch.stack([matrix.trace() for matrix in matrices])
    assert found.trace.sampling_stderr == pytest.approx(float(traces.std()) / 2, rel=0.3)
    assert all(pair.stderr > 0 for pair in found.spectrum.largest)


@pytest.mark.parametrize(
    "values", [[3.0], [1.0, -2.0], [0.0] * 4, [2.0] * 5, [5.0, 5.0, 0.0, 0.0, 0.0, -1.0]]
)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_tiny_and_singular_matrices(values, k):
    matrix = planted(values)
    found = survey(DenseOperator(matrix), k, probes=8)
    check_against(found, matrix, min(k, len(values)))
    assert found.density.near_zero.value == pytest.approx(
        (np.abs(values) <= found.density.threshold).mean(), abs=0.3
    )


def test_a_seed_repeats_and_a_start_saves():
    operator = DenseOperator(planted(network_like(300)))
    first, again = survey(operator, 3), survey(operator, 3)
    assert first.trace == again.trace
    np.testing.assert_array_equal(first.density.density, again.density.density)
    both = torch.cat([first.spectrum.vectors, first.spectrum.smallest_vector[:, None]], dim=1)
    warm = survey(operator, 3, start=both)
    assert warm.spectrum.products < 0.7 * first.spectrum.products


def test_a_tolerance_of_the_trace_is_met():
    found = survey(DenseOperator(planted(network_like(300))), 5, trace_tol=0.004)
    assert found.trace.stderr <= 0.004 * abs(found.trace.value)
    assert found.trace.stop == "tolerance"
    assert found.trace.probes > 32


class SlowOperator(MeanOperator):
    def _parts(self, block: torch.Tensor):
        time.sleep(0.003 * block.shape[1])
        yield from super()._parts(block)


def test_the_deadline_is_shared():
    matrix = planted(np.linspace(-1, 1, 500))
    began = time.monotonic()
    found = survey(SlowOperator([matrix]), 5, tol=1e-9, probes=500, deadline=began + 0.9)
    assert time.monotonic() - began < 1.6
    assert found.spectrum.stop == "time"
    assert found.density.steps >= 2
    assert 4 <= found.trace.probes < 500
    assert abs(found.trace.value) <= 5 * found.trace.stderr


@pytest.mark.parametrize(
    "options", [{"density_probes": 1}, {"density_steps": 1}, {"probes": 3}, {"k": 0}]
)
def test_impossible_settings_are_refused_before_any_product(options):
    operator = DenseOperator(planted([1, 2, 3]))
    with pytest.raises(InputError):
        survey(operator, **{"k": 1, **options})
    assert operator.products == 0


@pytest.mark.parametrize("name", ["mlp", "conv_batchnorm"])
def test_hessians_of_networks(name):
    case = nets.CASES[name]()
    dense = reference.hessian(case)
    found = survey(HessianOperator(Problem(*case.problem)), 3, probes=16, density_steps=20)
    check_against(found, dense, 3)
