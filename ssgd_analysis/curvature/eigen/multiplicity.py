"""What a Lanczos run from a random start says of eigenvalues that it has not shown."""

import math

import numpy as np

CONFIDENCE = 0.99


class Complement:
    """Bounds the eigenvalues of H outside wanted Ritz vectors, from one deflated Lanczos run.

    In an orthonormal basis H = [[Θ, Cᵀ], [C, A]]: Θ the unwanted Ritz values of the basis held,
    C their coupling, A the rest, on which the run has worked from a start r that is uniform on
    the sphere. Its Lanczos polynomial p_j maps r to a unit vector, so an eigenvector of A with
    eigenvalue a and overlap γ with r has |γ p_j(a)| ≤ 1; and |γ| < δ has a probability below
    δ √(2n/π). Hence a ≤ x, with this confidence, for all x beyond the Ritz values where
    p_j(x) ≥ 1/δ; and λ_max([[Θ, Cᵀ], [C, x I]]) bounds all of H that is outside the wanted
    vectors (Courant and Fischer).

    Args:
        values: Θ, shape (m,).
        coupling: C, shape (pending, m).
        free: n, the dimension of A.

    Reference:
        van Dorsselaer, Hochstenbach and van der Vorst, "Computing probabilistic bounds for
        extreme eigenvalues of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal.
        Appl. 22 (2000).
    """

    def __init__(self, values: np.ndarray, coupling: np.ndarray, free: int) -> None:
        self.values, self.coupling = values, coupling
        self.target = math.log(math.sqrt(2 * max(free, 1) / math.pi) / (1 - CONFIDENCE))
        self.log_betas = 0.0
        self.nodes, self.residuals = np.zeros(0), np.zeros(0)

    def extend(self, chain: np.ndarray, beta: float) -> None:
        """Take in one more step of the run.

        Args:
            chain: the run's projected matrix so far, shape (j, j).
            beta: length of the newest vector's residual; zero: the run is exhausted.
        """
        self.log_betas += math.log(beta) if beta else -math.inf
        self.nodes, coordinates = np.linalg.eigh(chain)
        self.residuals = beta * np.abs(coordinates[-1])

    def residual(self, side: int) -> float:
        """Residual norm of the run's own extreme pair, at the upper (1) or lower end (-1)."""
        return float(self.residuals[-1 if side > 0 else 0])

    def bound(self, side: int, limit: float) -> float:
        """Upper bound of ``side`` × (eigenvalues not wanted), or infinity if above ``limit``."""
        if not len(self.nodes):
            return math.inf
        edge = self._edge(np.sort(side * self.nodes))
        if edge > limit:
            return math.inf
        pending = len(self.coupling)
        whole = np.diag(np.concatenate([side * self.values, np.full(pending, edge)]))
        whole[len(self.values) :, : len(self.values)] = side * self.coupling
        return float(max(np.linalg.eigvalsh(whole)[-1] if len(whole) else edge, edge))

    def _edge(self, nodes: np.ndarray) -> float:
        """The x above all nodes with log p_j(x) = log 1/δ, by bisection."""
        if self.log_betas == -math.inf:
            return float(nodes[-1])
        # all factors of p_j are at least x − θ_max, so this distance is enough
        most = math.exp((self.target + self.log_betas) / len(nodes))
        low, high = 0.0, most
        for _ in range(60):
            middle = (low + high) / 2
            if np.log(np.maximum(nodes[-1] + middle - nodes, 1e-300)).sum() >= (
                self.target + self.log_betas
            ):
                high = middle
            else:
                low = middle
        return float(nodes[-1] + high)
