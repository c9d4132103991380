"""The range that a picture shows: linear or logarithmic, and what lies outside it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

LARGE = 20.0  # ratio of values above which a scale is logarithmic
FAR = 100.0  # times the lower quartile: what is above is off the scale
LEVELS = 16
NEAR = 100.0  # the height of a range over the smallest rise that its logarithm distinguishes


@dataclass(frozen=True)
class Scale:
    """A range of values that panels share.

    Args:
        low: the smallest value shown.
        high: the largest value shown.
        log: the scale is logarithmic.
        most: the largest finite value there is; above ``high`` where some are clipped.
        holes: values that are not finite.
        top: no level is above it: what no value can exceed.
        rise: the logarithm is that of the rise above ``low``, whatever ``log`` says.
    """

    low: float
    high: float
    log: bool = False
    most: float = -np.inf
    holes: int = 0
    top: float = np.inf
    rise: bool = False

    @property
    def _near(self) -> float:
        """The rise that is added before the logarithm, so that the minimum has a place."""
        return (self.high - self.low) / NEAR

    def placed(self, values: Any) -> Any:
        """Values where they stand on the scale: their logarithms if it is logarithmic."""
        if self.rise:
            return np.log(np.maximum(values - self.low, 0) + self._near)
        return np.log(values) if self.log else values

    def levels(self) -> np.ndarray:
        """Boundaries of about 16 colours, from below ``low`` to above ``high``."""
        if self.rise:
            rises = np.geomspace(self._near, self._near * (1 + NEAR), LEVELS) - self._near
            return np.append(self.low + rises[:-1], self.high)
        if self.log:
            return np.geomspace(self.low, self.high, LEVELS)
        low, high = self.low, self.high
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # constant
            low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
        return np.unique(np.minimum(MaxNLocator(LEVELS - 1).tick_values(low, high), self.top))

    def of_rises(self) -> "Scale":
        """The same range by the logarithm of the rise above its low end, if it has a length."""
        long = self.high - self.low > 1e-9 * max(abs(self.low), abs(self.high))
        return replace(self, rise=long)

    def notes(self, what: str, *, hatched: bool = True) -> list[str]:
        """What is not shown, in words.

        Args:
            what: the values are.
            hatched: whether values above the range are hatched.
        """
        found = []
        if hatched and self.most > self.high:
            found.append(f"hatched: {what} above {self.high:.3g} (largest {self.most:.3g})")
        if self.holes:
            found.append(f"cross-hatched: {self.holes} point(s) with a {what} that is not finite")
        return found


def loss_scale(values: Iterable[np.ndarray], include: Iterable[float | None] = ()) -> Scale:
    """The range of losses: logarithmic where they are positive and span a factor above 20.

    Values are off the scale that are above 100 times the lower quartile, and above every
    value to keep, such as the losses of the checkpoints: a landscape may reach 1e8 at its rim.

    Args:
        values: all losses that share the scale; what is not finite is a hole.
        include: values that the range must contain; ``None`` and values that are not finite are
            ignored.
    """
    every = np.concatenate([np.ravel(own) for own in values])
    finite = every[np.isfinite(every)]
    holes = len(every) - len(finite)
    included = [value for value in include if value is not None and np.isfinite(value)]
    if not len(finite):
        return Scale(min(included, default=0.0), max(included, default=1.0), holes=holes)
    low, most = float(finite.min()), float(finite.max())
    far = max([FAR * float(np.quantile(finite, 0.25)), *included])
    high = far if 0 < far < most else max([most, *included])
    low = min([low, *included])
    return Scale(low, high, low > 0 and high > LARGE * low, most, holes)


def plain_scale(values: Iterable[np.ndarray], top: float = np.inf) -> Scale:
    """The range of all finite values, linear: for accuracies, with the most they can be."""
    every = np.concatenate([np.ravel(own) for own in values])
    finite = every[np.isfinite(every)]
    if not len(finite):
        return Scale(0.0, 1.0)
    return Scale(float(finite.min()), float(finite.max()), most=float(finite.max()), top=top)


def distinct(values: Iterable[float]) -> list[str]:
    """Numbers in as few digits as distinguish them, three at least."""
    values = list(values)
    for digits in range(3, 15):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return [text.replace("-", "−") for text in texts]  # as on the axes


def round_ones(low: float, high: float, count: int) -> list[float]:
    """At most ``count`` powers of ten between two values; where there are few, also × 2 and × 5."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    for leading in ((1.0,), (1.0, 2.0, 5.0)):
        every = [lead * 10.0**power for power in range(first, last + 1) for lead in leading]
        inside = [value for value in every if low <= value <= high]
        if len(inside) >= 2:
            break
    apart = (high / low) ** (1 / count)  # so that their labels do not touch
    chosen = inside[:1]
    for value in inside[1:]:
        if value >= apart * chosen[-1]:
            chosen.append(value)
    return chosen


def short_number(value: float, _place: float = 0) -> str:
    """A round number in few letters."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e−")
