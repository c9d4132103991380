"""Is a minimum steeper to one side? The cut through two checkpoints, seen from each."""

import numpy as np


def valley_sides(alpha: np.ndarray, loss: np.ndarray) -> list[dict[str, float]] | None:
    """How the loss rises from each end of a line, towards the other end and away from it.

    An SGD solution next to an averaged one (SWA, S-SGD) often stands at the steep side of a
    valley whose flat side the other one lies on: then ``outward`` exceeds ``inward`` there.

    Args:
        alpha: coordinates, increasing, 0 and 1 among them and points beyond both.
        loss: shape of alpha.

    Returns:
        For both ends ``at``, the ``distance`` in fractions of the line (at most a half), and the
        rises ``inward`` and ``outward`` at this distance, linear between the points; ``None``
        where the line ends at its ends.

    Reference:
        He, Huang and Yuan 2019, "Asymmetric Valleys" (arXiv 1902.00744).
    """
    distance = min(0.5, -float(alpha[0]), float(alpha[-1]) - 1)
    if distance <= 0:
        return None
    sides = []
    for at, inward in ((0.0, 1.0), (1.0, -1.0)):
        there, towards, away = np.interp(
            [at, at + inward * distance, at - inward * distance], alpha, loss
        )
        sides.append(
            {
                "at": at,
                "distance": distance,
                "inward": float(towards - there),
                "outward": float(away - there),
            }
        )
    return sides
