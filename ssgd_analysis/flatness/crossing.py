"""Where a rise that depends on a distance first passes a level, by bracketing and bisection."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bracket:
    """Two distances with a crossing between them.

    Args:
        low: the rise is not above the level here; 0 where it is at every distance tried.
        high: it is here; infinite where it is not at any distance tried.
        below: the rise at ``low`` less the level.
        above: the rise at ``high`` less the level.
    """

    low: float
    high: float
    below: float = math.nan
    above: float = math.nan

    @property
    def middle(self) -> float:
        """On a logarithmic scale; 0 or infinite where the bracket is open."""
        return math.sqrt(self.low * self.high)

    @property
    def crossed(self) -> float:
        """Where a straight line over the logarithm of the distance crosses the level.

        The middle where the rise at ``high`` is not finite.
        """
        if not math.isfinite(self.above):
            return self.middle
        share = self.below / (self.below - self.above)
        return self.low * (self.high / self.low) ** share


def crossing(
    rise: Callable[[float], float],
    level: float,
    *,
    start: float,
    limit: float,
    tolerance: float,
) -> Bracket:
    """A bracket (a, b) with rise(a) ≤ level < rise(b) and b ≤ (1 + tolerance) a.

    No tolerance asks for more than floating point has.

    From ``start`` the distance is doubled until the rise is above the level, or halved until it
    is not; then the bracket is halved on a logarithmic scale. If the rise is not monotone there
    may be other crossings; this finds one, the same one for the same function. A rise that is
    not a number counts as above the level.

    Args:
        rise: of a distance > 0.
        level: to be passed.
        start: first distance tried.
        limit: largest distance tried; the smallest is ``start`` · ``start`` / ``limit``.
        tolerance: relative width of the bracket at the end.

    Returns:
        The bracket; (``limit``, ∞) where the rise is not above the level at any distance tried,
        (0, the smallest) where it is at every one.
    """
    left: dict[float, float] = {}  # the rise less the level

    def above(distance: float) -> bool:
        left[distance] = rise(distance) - level
        return not left[distance] <= 0

    low, high, floor = start, start, start * start / limit
    if above(start):
        while above(low := max(low / 2, floor)):
            high = low
            if low == floor:
                return Bracket(0.0, high)
    else:
        while not above(high := min(high * 2, limit)):
            low = high
            if high == limit:
                return Bracket(limit, math.inf)
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        low, high = (low, middle) if above(middle) else (middle, high)
    return Bracket(low, high, left[low], left[high])
