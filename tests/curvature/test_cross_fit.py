import math

import nets
import numpy as np
import pytest
import torch
from planted import MeanOperator, planted

from ssgd_analysis.curvature import DenseOperator, cross_fit, eigenpairs
from ssgd_analysis.curvature.operators.sampling import weighted_stderr
from ssgd_analysis.errors import InputError

SPECTRUM = torch.tensor([4.0, 2.5, *[1.0] * 18], dtype=torch.float64)


def sample(batches: int, size: int, seed: int, spectrum: torch.Tensor = SPECTRUM) -> MeanOperator:
    """H_b = mean of x xᵀ over a batch of examples with a known covariance."""
    draws = nets.randn(batches, size, len(spectrum), seed=seed) * spectrum.sqrt()
    return MeanOperator(draws.transpose(1, 2) @ draws / size)


def halves(operator: MeanOperator) -> tuple[MeanOperator, MeanOperator]:
    half = len(operator.matrices) // 2
    return MeanOperator(operator.matrices[:half]), MeanOperator(operator.matrices[half:])


def test_plug_in_is_biased_up_and_cross_fit_down():
    plain, crossed = [], []
    for seed in range(120):
        operator = sample(10, 6, seed)  # 60 examples in 20 dimensions
        whole = eigenpairs(operator, 2, smallest=False, generator=nets.generator(seed))
        fit = cross_fit(*halves(operator), whole.vectors, 2, generator=nets.generator(seed))
        plain.append([pair.value for pair in whole.largest])
        crossed.append(fit.values)
    above = np.mean(plain, axis=0) - SPECTRUM[:2].numpy()
    below = np.mean(crossed, axis=0) - SPECTRUM[:2].numpy()
    errors = np.std(plain, axis=0) / 120**0.5, np.std(crossed, axis=0) / 120**0.5
    assert (above > 4 * errors[0]).all()
    assert below[0] < -4 * errors[1][0]
    assert below.sum() < -4 * errors[1].sum()  # Ky Fan: the first k together


def test_plug_in_error_covers_a_well_separated_eigenvalue():
    spectrum = torch.tensor([10.0, *[0.5] * 9], dtype=torch.float64)
    inside, student = 0, 2.023  # 95% of t with 39 degrees of freedom
    for seed in range(300):
        operator = sample(40, 25, seed, spectrum)
        found = eigenpairs(operator, 1, smallest=False, generator=nets.generator(seed))
        (pair,) = found.largest
        inside += abs(pair.value - 10) <= student * pair.stderr
    assert 0.90 <= inside / 300 <= 0.99


def test_cross_fit_error_covers_its_own_mean():
    spectrum = torch.tensor([10.0, *[0.5] * 9], dtype=torch.float64)
    fits = [
        cross_fit(*halves(sample(40, 25, seed, spectrum)), None, 1, generator=nets.generator(seed))
        for seed in range(200)
    ]
    values = np.array([fit.values[0] for fit in fits])
    errors = np.array([fit.stderr[0] for fit in fits])
    assert float(np.sqrt((errors**2).mean())) == pytest.approx(values.std(), rel=0.2)
    assert 0.90 <= (np.abs(values - 10) <= 2.023 * errors).mean() <= 0.99


def test_equal_halves_give_the_eigenvalues():
    matrix = planted([5, 3, 1, *np.linspace(-1, 0.5, 30)])
    found = cross_fit(
        DenseOperator(matrix), DenseOperator(matrix), None, 2, generator=nets.generator(), tol=1e-8
    )
    assert found.values == pytest.approx([5, 3])
    assert found.stderr is None


def test_unequal_halves_are_weighted_by_the_judge():
    a, b = planted([4, 1, 0]), planted([4, 1, 0], seed=1)
    found = cross_fit(
        DenseOperator(a),
        DenseOperator(b),
        None,
        1,
        generator=nets.generator(),
        tol=1e-10,
        share_a=0.75,
    )
    tops = [torch.linalg.eigh(matrix)[1][:, -1] for matrix in (a, b)]
    quotients = [float(tops[0] @ b @ tops[0]), float(tops[1] @ a @ tops[1])]
    assert found.values[0] == pytest.approx(0.25 * quotients[0] + 0.75 * quotients[1])


def test_a_warm_start_saves_products_and_the_cost_is_said():
    operator = sample(20, 200, 0)
    whole = eigenpairs(operator, 2, smallest=False, generator=nets.generator())
    sides = halves(operator)
    warm = cross_fit(*sides, whole.vectors, 2, generator=nets.generator())
    assert warm.products == sides[0].products + sides[1].products
    cold = cross_fit(*halves(operator), None, 2, generator=nets.generator())
    assert warm.products <= cold.products


def test_impossible_halves_are_refused():
    a, b = DenseOperator(planted([1, 2])), DenseOperator(planted([1, 2, 3]))
    with pytest.raises(InputError, match="shape"):
        cross_fit(a, b, None, 1, generator=nets.generator())
    with pytest.raises(InputError, match="share"):
        cross_fit(a, a, None, 1, generator=nets.generator(), share_a=1)


def test_jackknife_and_batches_agree():
    # the linear theory behind the stderr: leave one batch out and solve again
    operator = sample(30, 100, 1)
    found = eigenpairs(operator, 1, smallest=False, generator=nets.generator())
    stack = torch.stack(operator.matrices)
    tops = [float(torch.linalg.eigvalsh((stack.sum(dim=0) - matrix) / 29)[-1]) for matrix in stack]
    jackknife = math.sqrt(29 / 30 * np.sum((np.array(tops) - np.mean(tops)) ** 2))
    assert found.largest[0].stderr == pytest.approx(jackknife, rel=0.15)
    own = [float(found.vectors[:, 0] @ m @ found.vectors[:, 0]) for m in stack]
    assert found.largest[0].stderr == pytest.approx(
        float(weighted_stderr(np.full(30, 1 / 30), np.array(own)))
    )
