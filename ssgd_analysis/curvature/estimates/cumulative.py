"""What moments tell of a cumulative distribution: the bounds of Chebyshev, Markov and Stieltjes."""

import numpy as np

FAR = 1e8  # of the matrix: an entry beyond it would spoil the others' digits


def cumulative_bounds(diagonal: np.ndarray, off: np.ndarray, at: float) -> tuple[float, float]:
    """The least and the most that a distribution with given moments can have up to a point.

    The Gauss-Radau rule with a node at the point has the distribution's first 2k moments. What it
    has below the point is a lower bound of the distribution there, and with the node's own weight
    an upper one; no better bounds follow from these moments.

    Args:
        diagonal: of the tridiagonal matrix of k Lanczos steps, shape (k,).
        off: its off-diagonal and, last, the entry that leads out of it, shape (k,); where that is
            zero the distribution is known, and both bounds are its value.
        at: the point.

    Returns:
        Bounds of the weight in (−∞, at], between 0 and 1.

    Reference:
        Golub and Meurant, "Matrices, Moments and Quadrature with Applications" (2010), sections
        6.2 and 6.4; Karlin and Studden 1966 for the sharpness.
    """
    nodes, vectors = _eigh(diagonal, off[:-1])
    weights, last, size = vectors[0] ** 2, off[-1], np.abs(nodes).max()
    if last == 0:
        exact = float(weights[nodes <= at].sum())
        return exact, exact
    gaps = nodes - at
    nearest = int(np.abs(gaps).argmin())
    # (T − at) δ = β² e_k, and the last diagonal entry at + δ_k makes ``at`` an eigenvalue
    parts = last**2 * vectors[-1] ** 2
    if np.abs(gaps).min() > 0 and abs((parts / gaps).sum()) < FAR * max(size, abs(at), last):
        entry = at + float((parts / gaps).sum())
        nodes, vectors = _eigh(np.append(diagonal, entry), off)
        weights = vectors[0] ** 2
        nearest = int(np.abs(nodes - at).argmin())
    # else the Gauss rule itself has a node there
    low = float(weights[:nearest].sum())
    return min(low, 1.0), min(low + float(weights[nearest]), 1.0)


def _eigh(diagonal: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
