import nets
import pytest
import reference
import torch

from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.landscapes.directions import normalized_directions, random_directions
from ssgd_analysis.problem import Problem


def facts(case: nets.Case, **options) -> dict:
    subject = NamedProblem("one", Problem(*case.problem), case.batches())
    return landscape([subject], LandscapeSettings(points=2, **options)).grids[0]


def dense(case: nets.Case, how: str, count: int) -> torch.Tensor:
    """Directions as columns, (P, count)."""
    problem = Problem(*case.problem)
    made = normalized_directions(problem, random_directions(problem, count, seed=0), how)
    return torch.stack([torch.cat([part.flatten() for part in d]) for d in made], dim=1)


@pytest.mark.parametrize("net", ["quadratic", "mlp", "conv_batchnorm", "tied", "frozen"])
@pytest.mark.parametrize("how", ["filter", "none"])
def test_slopes_curvatures_and_share_are_the_dense_ones(net, how):
    case = nets.quadratic(outputs=1) if net == "quadratic" else nets.CASES[net]()
    found = facts(case, dims=2, normalize=how)
    D, H = dense(case, how, 2), reference.hessian(case)
    seen = D.T @ H @ D
    g = reference.gradient(case)
    assert found["slopes"] == pytest.approx((D.T @ g).tolist(), rel=1e-9, abs=1e-12)
    assert found["curvatures"] == pytest.approx(seen.diagonal().tolist(), rel=1e-9, abs=1e-12)
    assert found["mixed"] == pytest.approx(float(seen[0, 1]), rel=1e-8, abs=1e-12)
    Q = torch.linalg.qr(D)[0]
    top = float(torch.linalg.eigvalsh(H)[-1])
    # λ_max to a residual of 1e-2: its error is below that, and at most its square over the gap
    assert found["lambda_max"]["value"] == pytest.approx(top, rel=1e-2)
    share = float(torch.linalg.eigvalsh(Q.T @ H @ Q)[-1]) / found["lambda_max"]["value"]
    assert found["share"] == pytest.approx(share, rel=1e-9, abs=1e-12)
    assert found["share_note"] is None


def test_an_eigen_plane_sees_all_of_the_largest_eigenvalue():
    found = facts(nets.mlp(), dims=2, directions="eigen", normalize="none")
    assert found["share"] == pytest.approx(1, abs=1e-6)  # a quotient's error: residual² over gap
    assert found["lambda_max"] == found["eigenvalues"][0]
    values = [pair["value"] for pair in found["eigenvalues"]]
    assert found["curvatures"] == pytest.approx(values, rel=1e-5)


def test_a_line_tells_its_curvature_but_no_share():
    case = nets.mlp()
    found = facts(case, normalize="none")
    d = dense(case, "none", 1)[:, 0]
    assert found["curvatures"] == pytest.approx([float(d @ reference.hessian(case) @ d)], rel=1e-9)
    assert (found["share"], found["lambda_max"], found["mixed"]) == (None, None, None)
    assert found["share_note"]


def test_without_a_second_derivative_there_is_a_reason():
    case = nets.mlp()

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * 2

    once = nets.Case(
        case.model, lambda out, y: case.loss(Once.apply(out), y), case.inputs, case.targets
    )
    found = facts(once, dims=2)
    assert found["share"] is None
    assert "second derivative" in found["share_note"]


def test_curvature_can_be_left_out():
    found = facts(nets.mlp(), dims=2, curvature=False)
    assert {found[key] for key in ("share", "lambda_max", "share_note", "slopes")} == {None}
