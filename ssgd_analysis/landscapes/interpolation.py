"""Interpolation of scattered losses and accuracies on a line or a plane, in cells of its grid."""

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator, RBFInterpolator

LOG_RANGE = 10.0
DYNAMIC_RANGE = 1e12
KERNELS = {"cubic": "cubic", "careful": "thin_plate_spline", "linear": "linear"}


class InterpolationScale:
    """The scale of the picture: log of the loss where its range is large and none is negative.

    Args:
        loss: finite losses, at least one; zeros are shown as the smallest positive of them.
    """

    def __init__(self, loss: np.ndarray) -> None:
        low, high = float(loss.min()), float(loss.max())
        self.log = low >= 0 and high > LOG_RANGE * low
        self.floor = float(loss[loss > high / DYNAMIC_RANGE].min()) if self.log else low
        self.low, self.high = (float(end) for end in self(np.array([low, high])))
        self.range = (self.high - self.low) or 1.0

    def __call__(self, loss: np.ndarray) -> np.ndarray:
        """Losses in this scale."""
        return np.log(np.maximum(loss, self.floor)) if self.log else loss

    def back(self, scaled: np.ndarray) -> np.ndarray:
        """Losses, clipped to the range of the given ones: no minimum is invented."""
        inside = np.clip(scaled, self.low, self.high)
        return np.exp(inside) if self.log else inside


def spline(
    kind: str,
    positions: np.ndarray,
    values: np.ndarray,
    wanted: np.ndarray,
    *,
    near: int | None = None,
) -> np.ndarray:
    """Values at wanted positions.

    Args:
        kind: ``cubic``: a cubic spline (on a plane the radial one, r³). ``careful``: one that
            overshoots less at kinks (monotone cubic; on a plane the thin-plate spline).
            ``linear``: on a plane the radial one, r.
        positions: (M, dims), for lines in increasing order.
        values: (M,), finite; none are needed for NaN everywhere.
        wanted: (N, dims).
        near: on a plane, from how many nearest positions each value comes; from all if not given.

    Returns:
        (N,).
    """
    if not len(positions):
        return np.full(len(wanted), np.nan)
    if positions.shape[1] == 1:
        x, where = positions[:, 0], wanted[:, 0]
        if kind == "linear" or len(x) < 2:
            return np.interp(where, x, values)
        return (CubicSpline if kind == "cubic" else PchipInterpolator)(x, values)(where)
    if np.linalg.matrix_rank(positions - positions[0]) < 2:
        kind = "linear"  # the others need points that are not all on one line
    radial: Any = RBFInterpolator  # its types differ between versions
    return radial(positions, values, kernel=KERNELS[kind], neighbors=near)(wanted)
