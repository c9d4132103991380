"""Words that all pictures of landscapes share."""

import math
from typing import Any


def percent(share: float) -> str:
    """A fraction as a percentage of two digits; only what is whole is 100%."""
    value = 100 * share
    if abs(value) < 9.95:
        text = f"{value:.2g}" if abs(value) >= 1e-3 or not value else "<0.001"
    else:
        near = 100 - abs(value)
        digits = 0 if not 0.005 <= near < 0.995 else 1 if near >= 0.05 else 2
        text = f"{value:.{digits}f}"
    return f"{text.replace('-', '−')}%"


def axis_unit(record: dict[str, Any], axis: str) -> str:
    """The unit of ``alpha`` or ``beta``; empty where the record has none."""
    return str((record.get("units") or {}).get(axis) or "")


def visible_curvature(grid: dict[str, Any], *, plane: bool) -> str:
    """The share of the largest curvature that a plane sees, or why there is none."""
    if not plane:  # of a line the curvature alone is reported
        return ""
    if grid.get("share") is not None:
        return f"this plane sees {percent(grid['share'])} of λ_max"
    return f"share of λ_max: {grid['share_note']}" if grid.get("share_note") else ""


def outside(grid: dict[str, Any]) -> float | None:
    """The largest distance of a run's path from the line or plane that is drawn."""
    distances = [far for far in (grid.get("path") or {}).get("outside") or [] if far is not None]
    return max((far for far in distances if math.isfinite(far)), default=None)
