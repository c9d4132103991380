import nets
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssgd_analysis.curvature import DenseOperator, HessianOperator, Trace, trace
from ssgd_analysis.errors import InputError

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def symmetric(size: int, seed: int = 0) -> Tensor:
    matrix = nets.randn(size, size, seed=seed)
    return matrix + matrix.T + torch.diag(torch.arange(size, dtype=torch.float64))


def estimate(matrix: Tensor, seed: int = 0, probes: int = 32) -> Trace:
    return trace(DenseOperator(matrix), generator=nets.generator(seed), probes=probes)


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
    found = trace(HessianOperator(*case.problem), generator=nets.generator(), probes=128)
    assert abs(found.value - float(reference.hessian(case).trace())) <= 5 * found.stderr
    theory = (variance_of_a_probe(reference.hessian(case)) / 128) ** 0.5
    assert found.stderr == pytest.approx(theory, rel=0.5)  # 128 probes, heavy-tailed squares
