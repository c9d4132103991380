"""Beside other packages: the same where they are right, and right where they are known to fail.

The defects are those of ``shared/PEERS.md``, read in the code of PyHessian,
pytorch-hessian-eigenthings and curvlinops or in their issues.
"""

import copy
import gc
import warnings

import nets
import numpy as np
import pytest
import reference
import torch
from planted import planted
from pyhessian import hessian as pyhessian
from torch import nn

from ssgd_analysis.curvature import (
    OPERATORS,
    DenseOperator,
    GGNOperator,
    HessianOperator,
    eigenpairs,
    spectral_density,
    trace,
)
from ssgd_analysis.problem import Problem

pytestmark = pytest.mark.peers
BATCHES = (nets.BATCH, nets.N)  # with a short last batch, and all at once
CURVLINOPS = {"hessian": "Hessian", "ggn": "GGN", "fisher": "EF"}


def torch_loss(case: nets.Case) -> nn.Module:
    """curvlinops knows torch's own losses only."""
    return nn.MSELoss() if case.loss is nets.mse else nn.CrossEntropyLoss()


def curvlinops_product(case: nets.Case, name: str, size: int, vectors: torch.Tensor):
    import curvlinops  # slow to import: only where it is used

    kind = getattr(curvlinops, f"{CURVLINOPS[name]}LinearOperator")
    parameters = list(reference.trainable(model := nets.evaluated(case.model)))
    parameters = [model.get_parameter(name) for name in parameters]
    return kind(model, torch_loss(case), parameters, case.batches(size)) @ vectors


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("name", CURVLINOPS)
@pytest.mark.parametrize(
    "net", ["mlp", "conv_batchnorm", "frozen", "regression", "embedding", "normalised", "volumes"]
)
def test_curvlinops_agrees(net, name, size):
    case = nets.CASES[net]()
    vectors = nets.randn(len(reference.flat_weights(case.model)), 2)
    ours = OPERATORS[name](Problem(case.model, case.loss, case.batches(size))) @ vectors
    if (net, name) == ("normalised", "hessian"):
        # torch's jvp(jacrev) of a LayerNorm is wrong, and with it curvlinops' product: by 7%
        theirs = reference.hessian(case) @ vectors
    else:
        theirs = curvlinops_product(case, name, size, vectors)
    if (net, name) == ("regression", "fisher"):
        theirs /= 2  # it takes an example's gradient of the sum over outputs, times 1 / (N · 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * float(ours.abs().max()))


def pyhessian_of(case: nets.Case, size: int) -> pyhessian:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its backward(create_graph=True)
        return pyhessian(
            copy.deepcopy(case.model), case.loss, dataloader=case.batches(size), cuda=False
        )


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "regression", "embedding", "volumes"])
def test_pyhessian_agrees(net, size):
    case = nets.CASES[net]()
    vectors = nets.randn(len(reference.flat_weights(case.model)), 1)
    operator = HessianOperator(Problem(case.model, case.loss, case.batches(size)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pyhessian_of(case, size).dataloader_hv_product(
            operator.problem.split(vectors[:, 0].clone())
        )[1]
    theirs = torch.cat([part.reshape(-1) for part in theirs])
    torch.testing.assert_close(operator @ vectors[:, 0], theirs, rtol=1e-8, atol=1e-9)


# Defects of peers


def test_short_last_batch_has_its_own_weight():
    """eigenthings averages batches by 1 / (number of batches)."""
    case = nets.mlp()
    vectors = nets.randn(len(reference.flat_weights(case.model)), 2)
    whole = reference.hessian(case) @ vectors
    for size in (2, 3, 4, 10):
        found = HessianOperator(Problem(case.model, case.loss, case.batches(size))) @ vectors
        torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-12)


def lanczos_without_memory(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """Ritz values of the three-term recurrence alone, as peers run it by default."""
    q = nets.randn(len(matrix))
    q, before, beta, alphas, betas = q / q.norm(), torch.zeros_like(q), 0.0, [], []
    for _ in range(steps):
        w = matrix @ q - beta * before
        alphas.append(float(q @ w))
        w = w - alphas[-1] * q
        beta = float(w.norm())
        betas.append(beta)
        before, q = q, w / beta
    tridiagonal = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    return torch.tensor(np.linalg.eigvalsh(tridiagonal)).flip(0)


def test_no_ghost_eigenvalues():
    """Without re-orthogonalisation a converged eigenvalue comes again (eigenthings, > 50 steps)."""
    values = np.concatenate([[10.0, 5.0, 3.0], np.linspace(0, 1, 197)])
    matrix = planted(values)
    ghosts = lanczos_without_memory(matrix, 80)
    assert float(ghosts[1]) == pytest.approx(10, abs=1e-6)  # the disease is there
    found = eigenpairs(DenseOperator(matrix), 5, tol=1e-10, generator=nets.generator())
    truth = -np.sort(-values)[:5]
    assert [pair.value for pair in found.largest] == pytest.approx(truth, abs=1e-8)
    overlaps = found.vectors.T @ found.vectors - torch.eye(5, dtype=torch.float64)
    assert float(overlaps.abs().max()) < 1e-10


@pytest.mark.parametrize("k", [1, 5])
def test_more_than_2k_krylov_steps(k):
    """min(2k, n − 1) steps, eigenthings' default, are ten for k = 5: far too few here."""
    values = np.linspace(1, 2, 300) ** 3
    found = eigenpairs(DenseOperator(planted(values)), k, tol=1e-6, generator=nets.generator())
    assert found.products > 2 * k
    assert [pair.value for pair in found.largest] == pytest.approx(values[-k:][::-1], rel=1e-6)
    assert max(pair.residual for pair in found.largest) <= 1e-6


def test_two_lucky_probes_do_not_stop_the_trace():
    """PyHessian stops when two running means agree, whatever their error."""
    matrix = torch.diag(torch.full((400,), 1.0, dtype=torch.float64))
    matrix[0, 1] = matrix[1, 0] = 300.0  # a probe gives 400 ± 600; two alike come half the time
    for seed in range(20):
        operator = DenseOperator(matrix)
        found = trace(operator, generator=nets.generator(seed), tol=0.05, max_probes=64, probes=2)
        assert operator.products >= 16
        assert abs(found.value - 400) <= 5 * found.stderr
        assert found.stderr > 0


def test_unused_parameters():
    """PyHessian puts a float in place of a gradient that is None, and crashes (its issue 8)."""
    case = nets.unused()
    operator = HessianOperator(Problem(*case.problem))
    dense = reference.hessian(case)
    torch.testing.assert_close(operator @ torch.eye(len(dense), dtype=torch.float64), dense)
    found = eigenpairs(operator, 2, generator=nets.generator())
    place = list(operator.problem.parameters).index("unused")
    # of a random start nothing but what the tolerance allows is left
    assert float(operator.problem.split(found.vectors[:, 0])[place].norm()) < 1e-4


@pytest.mark.parametrize("name", CURVLINOPS)
def test_frozen_parameters(name):
    """eigenthings, issue 30: "Differentiated tensors not used"."""
    case = nets.frozen()
    dense = reference.OPERATORS[name](case)
    operator = OPERATORS[name](Problem(*case.problem))
    assert operator.shape == dense.shape
    torch.testing.assert_close(operator @ torch.eye(len(dense), dtype=torch.float64), dense)


@pytest.mark.parametrize("name", CURVLINOPS)
@pytest.mark.parametrize("net", ["volumes", "positions"])
def test_outputs_and_nets_of_more_dimensions(net, name):
    """3-D nets (PyHessian 8, 12), outputs of more than two axes (curvlinops 60, 62)."""
    case = nets.CASES[net]()
    dense = reference.OPERATORS[name](case)
    found = OPERATORS[name](Problem(*case.problem)) @ torch.eye(len(dense), dtype=torch.float64)
    torch.testing.assert_close(found, dense, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", nets.CASES)
def test_determinism_is_checked_in_any_precision(net, dtype):
    """curvlinops, issue 132: in double precision its check refuses sound problems."""
    case = nets.CASES[net]()
    case.model.to(dtype)
    floats = [t.to(dtype) if t.is_floating_point() else t for t in (case.inputs, case.targets)]
    Problem(case.model, case.loss, [tuple(floats)]).check()


def test_density_has_real_weights_that_sum_to_one():
    """PyHessian takes the general eig of a symmetric matrix: weights stay complex."""
    values = np.repeat([-1.0, 0.0, 2.0], 40)
    found = spectral_density(DenseOperator(planted(values)), generator=nets.generator())
    assert found.density.dtype == np.float64
    assert (found.density >= 0).all()
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_tiny_norms_are_normalised(scale):
    """PyHessian divides by ‖v‖ + 1e-6: wrong where the norm is small."""
    values = scale * np.array([5.0, 3.0, 1.0, -2.0])
    found = eigenpairs(
        DenseOperator(planted(values)), 2, generator=nets.generator(), start=scale * nets.randn(4)
    )
    assert found.vectors.norm(dim=0).tolist() == pytest.approx([1, 1], rel=1e-12)
    assert [pair.value for pair in found.largest] == pytest.approx(values[:2], rel=1e-9)


def test_a_negative_eigenvalue_is_not_the_largest():
    """Power iteration finds magnitudes: PyHessian puts −9 before 4."""
    matrix = planted(np.concatenate([[-9.0, 4.0, 3.0], np.linspace(-1, 1, 50)]))
    found = eigenpairs(DenseOperator(matrix), 2, tol=1e-8, generator=nets.generator())
    assert [pair.value for pair in found.largest] == pytest.approx([4, 3])
    assert found.smallest.value == pytest.approx(-9)
    both = eigenpairs(
        DenseOperator(matrix), 2, tol=1e-8, generator=nets.generator(), by="magnitude"
    )
    assert [pair.value for pair in both.largest] == pytest.approx([-9, 4])


@pytest.mark.parametrize("name", OPERATORS)
def test_the_model_is_given_back(name):
    """PyHessian leaves evaluation mode, gradients and a reference cycle behind (issue 25)."""
    case = nets.with_state(nets.mlp())
    case.model.train()
    before = nets.state(case.model)
    operator = OPERATORS[name](Problem(*case.problem))
    eigenpairs(operator, 2, generator=nets.generator())
    trace(operator, generator=nets.generator(), probes=4)
    assert nets.state(case.model) == before


def test_nothing_is_left_in_memory():
    """No reference cycle holds the graph: it goes with the operator, without the collector."""
    case = nets.mlp()
    freed: list[str] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.watch = Watch()
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            return slope

    class Watch:
        def __del__(self):
            freed.append("graph")

    def loss(outputs, targets):
        return case.loss(Watched.apply(outputs), targets)

    gc.collect()
    gc.disable()
    try:
        operator = HessianOperator(Problem(case.model, loss, case.batches(nets.N)))
        _ = operator @ nets.randn(operator.shape[0])
        kept = len(freed)
        operator.engine._states.clear()
        assert len(freed) == kept + 1
    finally:
        gc.enable()


def test_ggn_of_positions_averages_over_them():
    """A loss over positions is one mean: no factor of T is lost (curvlinops 62)."""
    case = nets.positions()
    one = nets.Case(case.model, case.loss, case.inputs[:1], case.targets[:1])
    operator = GGNOperator(Problem(one.model, one.loss, one.batches()))
    vectors = nets.randn(operator.shape[0], 2)
    torch.testing.assert_close(operator @ vectors, reference.ggn(one) @ vectors)
