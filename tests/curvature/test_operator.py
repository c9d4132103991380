import nets
import numpy as np
import pytest
import reference
import scipy.sparse.linalg
import torch

from ssgd_analysis.curvature import (
    OPERATORS,
    BlockDiagonalOperator,
    DenseOperator,
    ScaledOperator,
)
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem


@pytest.fixture(params=nets.CASES)
def case(request) -> nets.Case:
    return nets.with_state(nets.CASES[request.param]())


@pytest.fixture(params=["conv_batchnorm", "tied", "frozen", "attention"])
def few(request) -> nets.Case:
    """For what holds whatever the network: those that have the most to lose."""
    return nets.with_state(nets.CASES[request.param]())


def test_every_operator_has_a_truth():
    # the Monte Carlo Fisher matrix is random: test_fisher.py holds it against its mean
    assert set(OPERATORS) == {*reference.OPERATORS, "fisher-mc"}


@pytest.fixture(params=reference.OPERATORS)
def name(request) -> str:
    return request.param


def close(found: torch.Tensor, truth: torch.Tensor) -> None:
    # float64 sums of a few hundred terms, in another order
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-11 * float(truth.abs().max()))


def block(case: nets.Case, columns: int, seed: int = 0) -> torch.Tensor:
    return nets.randn(len(reference.flat_weights(case.model)), columns, seed=seed)


def test_reference_hessian_is_the_slope_of_the_gradient(case):
    # the truth itself against central differences: error of order step² + 1e-16 / step
    w, step = reference.flat_weights(case.model), 1e-5
    direction = block(case, 1)[:, 0]
    ahead = reference.gradient(case, w + step * direction)
    behind = reference.gradient(case, w - step * direction)
    found = (ahead - behind) / (2 * step)
    torch.testing.assert_close(found, reference.hessian(case) @ direction, rtol=1e-6, atol=1e-7)


def test_products_equal_the_dense_matrix(case, name):
    matrix = reference.OPERATORS[name](case)
    for size in (nets.BATCH, nets.N):
        operator = OPERATORS[name](Problem(case.model, case.loss, case.batches(size)))
        for columns in (1, 3):
            vectors = block(case, columns)
            close(operator @ vectors, matrix @ vectors)


def test_one_vector_is_a_column(few, name):
    operator = OPERATORS[name](Problem(*few.problem))
    vector = block(few, 1)
    assert torch.equal(operator @ vector[:, 0], (operator @ vector)[:, 0])


def test_symmetric_and_linear(few, name):
    operator = OPERATORS[name](Problem(*few.problem))
    u, v = block(few, 2).T
    hu, hv = (operator @ torch.stack([u, v], dim=1)).T
    assert float(u @ hv) == pytest.approx(float(v @ hu), rel=1e-9, abs=1e-12)
    close(operator @ (2 * u - 3 * v), 2 * hu - 3 * hv)


@pytest.mark.parametrize("name", ["ggn", "fisher", "covariance"])
def test_relatives_are_positive_semidefinite(case, name):
    operator = OPERATORS[name](Problem(*case.problem))
    dense = operator @ torch.eye(operator.shape[0], dtype=torch.float64)
    values = torch.linalg.eigvalsh((dense + dense.T) / 2)
    assert float(values[0]) >= -1e-12 * float(values[-1])
    assert float(values[-1]) > 0


def test_hessian_and_ggn_differ_where_the_model_is_not_linear():
    case = nets.mlp()
    vector = block(case, 1)
    hessian, ggn = (OPERATORS[n](Problem(*case.problem)) @ vector for n in ("hessian", "ggn"))
    assert float((hessian - ggn).norm()) > 0.01 * float(hessian.norm())


def test_unused_and_frozen_parameters():
    case = nets.unused()
    operator = OPERATORS["hessian"](Problem(*case.problem))
    names = list(operator.problem.parameters)
    sizes = [parameter.numel() for parameter in operator.parameters]
    pieces = dict(zip(names, (operator @ block(case, 1)[:, 0]).split(sizes), strict=True))
    assert not pieces["unused"].any()
    assert pieces["0.weight"].any()
    assert (
        "0.weight" not in OPERATORS["hessian"](Problem(*nets.frozen().problem)).problem.parameters
    )


def test_products_count_columns(few, name):
    operator = OPERATORS[name](Problem(*few.problem))
    assert operator.products == 0
    _ = operator @ block(few, 1)[:, 0]
    assert operator.products == 1
    _ = operator @ block(few, 3)
    assert operator.products == 4
    list(operator.parts(block(few, 2)))
    assert operator.products == 6
    assert OPERATORS[name](Problem(*few.problem)).products == 0  # not shared between operators


@pytest.mark.parametrize("name", ["hessian", "ggn", "fisher"])
def test_parts_are_the_batches_with_their_shares(case, name):
    operator = OPERATORS[name](Problem(*case.problem))
    vectors = block(case, 2)
    parts = list(operator.parts(vectors))
    assert [weight for weight, _ in parts] == pytest.approx([4 / 11, 4 / 11, 3 / 11])
    for (_, part), (x, y) in zip(parts, case.batches(), strict=True):
        single = nets.Case(case.model, case.loss, x, y)
        close(part, reference.OPERATORS[name](single) @ vectors)


def test_scipy_finds_the_dense_eigenvalues(few, name):
    operator = OPERATORS[name](Problem(*few.problem)).to_scipy()
    start = np.random.default_rng(0).normal(size=operator.shape[0])
    found = scipy.sparse.linalg.eigsh(operator, k=2, which="LA", v0=start, tol=1e-10)[0]
    truth = torch.linalg.eigvalsh(reference.OPERATORS[name](few))[-2:].numpy()
    np.testing.assert_allclose(np.sort(found), truth, rtol=1e-8, atol=1e-10 * abs(truth[-1]))


def test_scipy_multiplies_every_way():
    matrix = nets.randn(6, 6) + nets.randn(6, 6).T
    operator, dense = DenseOperator(matrix).to_scipy(), matrix.numpy()
    vectors = nets.randn(6, 3, seed=2).numpy()
    assert operator.dtype == np.float64
    np.testing.assert_allclose(operator @ vectors, dense @ vectors, rtol=1e-13)
    np.testing.assert_allclose(operator.matvec(vectors[:, 0]), dense @ vectors[:, 0], rtol=1e-13)
    np.testing.assert_allclose(operator.matvec(vectors[:, :1]), dense @ vectors[:, :1], rtol=1e-13)
    np.testing.assert_allclose(operator.rmatvec(vectors[:, 0]), dense @ vectors[:, 0], rtol=1e-13)
    np.testing.assert_allclose(operator.H @ vectors, dense @ vectors, rtol=1e-13)
    np.testing.assert_allclose(operator.T @ vectors, dense @ vectors, rtol=1e-13)


def test_scipy_keeps_the_precision():
    operator = DenseOperator(torch.eye(4)).to_scipy()
    assert operator.dtype == np.float32
    assert (operator @ np.ones(4, dtype=np.float32)).dtype == np.float32


@pytest.mark.parametrize("kind", ["reversed", "read-only"])
def test_scipy_takes_any_numpy_array(kind):
    matrix = nets.randn(6, 6) + nets.randn(6, 6).T
    vector = nets.randn(6, seed=2).numpy()
    if kind == "reversed":
        vector = vector[::-1]  # a view with a negative stride
    else:
        vector.setflags(write=False)
    np.testing.assert_allclose(
        DenseOperator(matrix).to_scipy() @ vector, matrix.numpy() @ vector, rtol=1e-13
    )


@pytest.mark.parametrize("shape", [(5,), (5, 2), (7, 2), (2, 6), (6, 2, 1)])
def test_shapes_that_do_not_fit_are_refused(shape):
    operator = DenseOperator(torch.eye(6, dtype=torch.float64))
    with pytest.raises(ValueError, match="not fit"):
        _ = operator @ torch.zeros(shape, dtype=torch.float64)
    assert operator.products == 0


def test_no_data_is_refused(name):
    with pytest.raises(InputError, match="empty"):
        OPERATORS[name](Problem(nets.mlp().model, nets.cross_entropy, []))


def test_model_comes_back_untouched(few, name):
    before = nets.state(few.model)
    _ = OPERATORS[name](Problem(*few.problem)) @ block(few, 2)
    assert nets.state(few.model) == before


def test_model_comes_back_untouched_after_an_error(few, name):
    before = nets.state(few.model)
    failing = nets.RaisesAfter(few.loss, 1)
    with pytest.raises(KeyboardInterrupt):
        _ = OPERATORS[name](Problem(few.model, failing, few.batches())) @ block(few, 2)
    assert nets.state(few.model) == before


def test_model_is_itself_while_the_caller_looks_at_a_part(few, name):
    before = nets.state(few.model)
    for _ in OPERATORS[name](Problem(*few.problem)).parts(block(few, 2)):
        assert nets.state(few.model) == before


def test_global_random_numbers_are_not_spent(name):
    case = nets.mlp()
    before = torch.random.get_rng_state()
    _ = OPERATORS[name](Problem(*case.problem)) @ block(case, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_products_work_where_gradients_are_off(name):
    case = nets.mlp()
    with torch.no_grad():
        found = OPERATORS[name](Problem(*case.problem)) @ block(case, 1)
    close(found, reference.OPERATORS[name](case) @ block(case, 1))


@pytest.mark.parametrize("name", ["hessian", "ggn", "fisher"])
def test_halves_are_every_other_batch(case, name):
    operator = OPERATORS[name](Problem(*case.problem))
    vectors, batches = block(case, 2), case.batches()
    for half, chosen in zip(operator.halves(), ([0, 2], [1]), strict=True):
        inputs = torch.cat([batches[index][0] for index in chosen])
        targets = torch.cat([batches[index][1] for index in chosen])
        truth = reference.OPERATORS[name](nets.Case(case.model, case.loss, inputs, targets))
        close(half @ vectors, truth @ vectors)
        assert [weight for weight, _ in half.parts(vectors)] == pytest.approx(
            [len(batches[index][0]) / len(inputs) for index in chosen]
        )


def test_halves_of_one_batch_are_refused():
    case = nets.mlp()
    with pytest.raises(ValueError, match="at least one batch"):
        OPERATORS["hessian"](Problem(case.model, case.loss, case.batches(nets.N))).halves()


def test_scaled_is_dhd(few, name):
    matrix, diagonal = reference.OPERATORS[name](few), block(few, 1)[:, 0]
    operator = ScaledOperator(OPERATORS[name](Problem(*few.problem)), diagonal)
    vectors = block(few, 2, seed=1)
    close(operator @ vectors, torch.diag(diagonal) @ matrix @ torch.diag(diagonal) @ vectors)
    with pytest.raises(ValueError, match="not fit"):
        ScaledOperator(operator, diagonal[1:])


@pytest.mark.parametrize("name", ["hessian", "ggn", "fisher"])
def test_block_diagonal_is_the_diagonal_blocks(case, name):
    matrix, layers = reference.OPERATORS[name](case), reference.layers(case)
    operator = BlockDiagonalOperator(OPERATORS[name](Problem(*case.problem)))
    assert operator.layers == layers
    truth = torch.zeros_like(matrix)
    for place in layers.values():
        truth[place, place] = matrix[place, place]
    vectors = block(case, 2)
    close(operator @ vectors, truth @ vectors)
    alone = torch.zeros_like(vectors)
    first = next(iter(layers.values()))
    alone[first] = vectors[first]
    close(operator @ alone, truth @ alone)


def test_block_diagonal_by_tensors(case):
    matrix = reference.hessian(case)
    operator = BlockDiagonalOperator(OPERATORS["hessian"](Problem(*case.problem)), tensors=True)
    truth, start = torch.zeros_like(matrix), 0
    for name, weight in reference.trainable(case.model).items():
        place = slice(start, start + weight.numel())
        assert operator.layers[name] == place
        truth[place, place] = matrix[place, place]
        start = place.stop
    assert len(operator.layers) == len(reference.trainable(case.model))
    vectors = block(case, 2)
    close(operator @ vectors, truth @ vectors)


def test_block_diagonal_of_the_covariance_is_refused():
    with pytest.raises(InputError, match="per-layer"):
        BlockDiagonalOperator(OPERATORS["covariance"](Problem(*nets.mlp().problem)))


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["0.weight"], ["0.weight"]),
        (["0*"], ["0.weight", "0.bias"]),
        (["0"], ["0.weight", "0.bias"]),
        (["*.bias"], ["0.bias", "3.bias", "5.bias"]),
        (["5", "0.bias"], ["0.bias", "5.weight", "5.bias"]),
    ],
)
def test_layers_restrict_to_a_submatrix(name, patterns, kept):
    case = nets.mlp()
    operator = OPERATORS[name](Problem(*case.problem, layers=patterns))
    assert list(operator.problem.parameters) == kept
    sizes = {n: p.numel() for n, p in reference.trainable(case.model).items()}
    index = torch.arange(sum(sizes.values())).split(list(sizes.values()))
    rows = torch.cat([i for n, i in zip(sizes, index, strict=True) if n in kept])
    vectors = nets.randn(len(rows), 2)
    close(operator @ vectors, reference.OPERATORS[name](case)[rows][:, rows] @ vectors)


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(InputError, match=r"no parameter matches --layers 'conv\*'.*0\.weight"):
        OPERATORS["hessian"](Problem(*nets.mlp().problem, layers=["0", "conv*"]))
