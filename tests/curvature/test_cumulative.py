import numpy as np
import pytest

from ssgd_analysis.curvature.estimates.cumulative import cumulative_bounds


def lanczos(values: np.ndarray, weights: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of the measure Σ w δ_v, by Gram-Schmidt on diag(values)."""
    basis = [np.sqrt(weights)]
    diagonal, off = [], []
    for _ in range(steps):
        image = values * basis[-1]
        diagonal.append(basis[-1] @ image)
        for _ in range(3):
            image = image - sum((vector @ image) * vector for vector in basis)
        off.append(np.linalg.norm(image))
        if off[-1] < 1e-12:
            off[-1] = 0.0
            break
        basis.append(image / off[-1])
    return np.array(diagonal), np.array(off)


def christoffel(diagonal: np.ndarray, off: np.ndarray, at: float) -> float:
    """1 / Σ p_j(at)² over the orthonormal polynomials of degree 0 to k, by their recurrence."""
    before, now, total, coupling = 0.0, 1.0, 1.0, 0.0
    for a, b in zip(diagonal, off, strict=True):
        before, now = now, ((at - a) * now - coupling * before) / b
        coupling = b
        total += now**2
    return 1 / total


def measure(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    values = {
        "uniform": draws.uniform(-1, 3, 200),
        "log": np.r_[10 ** draws.uniform(-6, 0, 120), -(10 ** draws.uniform(-6, -1, 80))],
        "atom": np.r_[np.zeros(150), draws.normal(0, 0.1, 50)],
    }[kind]
    return values, draws.dirichlet(np.ones(len(values)))


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("kind", ["uniform", "log", "atom"])
def test_the_truth_is_between_the_bounds_everywhere(kind, steps):
    for seed in range(10):
        values, weights = measure(kind, seed)
        jacobi = lanczos(values, weights, steps)
        for at in (-5.0, -0.2, -1e-3, 0.0, 1e-3, 0.1, 0.7, 5.0):
            low, high = cumulative_bounds(*jacobi, at)
            truth = weights[values <= at].sum()
            assert low - 1e-9 <= truth <= high + 1e-9


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_bounds_are_the_closest_there_are(steps):
    # the extremal measures differ by the Christoffel function at the point, and by nothing else
    values, weights = measure("uniform", 0)
    jacobi = lanczos(values, weights, steps)
    for at in (-0.7, 0.1, 1.3, 2.9):
        low, high = cumulative_bounds(*jacobi, at)
        assert high - low == pytest.approx(christoffel(*jacobi, at), rel=1e-8)


def test_a_node_at_the_point_is_open():
    # two steps of a symmetric measure and one: the Gauss rule has a node at zero
    values, weights = np.array([-1.0, 0.0, 1.0, -2, 2]), np.full(5, 0.2)
    low, high = cumulative_bounds(*lanczos(values, weights, 1), 0.0)
    assert low <= 0.4 <= 0.6 <= high


def test_an_exhausted_run_is_exact():
    values, weights = np.array([-1.0, 0.0, 2.0]), np.array([0.2, 0.5, 0.3])
    for at, truth in ((-2, 0.0), (-0.5, 0.2), (0.5, 0.7), (3, 1.0)):
        assert cumulative_bounds(*lanczos(values, weights, 9), at) == pytest.approx((truth, truth))
