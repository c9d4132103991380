"""What pictures are drawn for, and the caveat that they carry."""

import math
from collections.abc import Mapping

from ssgd_analysis.plots.style import Paper
from ssgd_analysis.settings.pictures import PictureSettings

EQUAL = 0.1  # relative difference of train losses below which nothing is said


def paper_of(settings: PictureSettings | None) -> Paper:
    """The paper for settings; ``None``: the default one."""
    chosen = settings or PictureSettings()
    return Paper(chosen.width, chosen.title or "", chosen.small_print)


def unequal_losses(losses: Mapping[str, float | None], *, tolerance: float = EQUAL) -> str:
    """The caveat where losses differ by more than a tolerance; else an empty text.

    Args:
        losses: short name → loss, nats per example; ``None``: unknown.
        tolerance: of the difference, relative to the lowest loss.

    Example:
        >>> unequal_losses({"sgd": 0.5, "sam": 0.52})
        ''
        >>> unequal_losses({"sgd": 0.5, "sam": 1.0})
        'the losses are unequal (sgd 0.5, sam 1): less training alone can look flatter'
    """
    known = {name: v for name, v in losses.items() if v is not None and math.isfinite(v)}
    if len(known) < 2:
        return ""
    low, high = min(known.values()), max(known.values())
    if high - low <= tolerance * abs(low):
        return ""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
    if len(known) > 4:
        shown = f"{low:.3g} to {high:.3g}"
    return f"the losses are unequal ({shown}): less training alone can look flatter"
