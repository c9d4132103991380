"""Where a rise that depends on a distance first passes a level, by bracketing and bisection."""

import math
from collections.abc import Callable


def crossing(
    rise: Callable[[float], float],
    level: float,
    *,
    start: float,
    limit: float,
    tolerance: float,
) -> tuple[float, float]:
    """A bracket (a, b) with rise(a) ≤ level < rise(b) and b ≤ (1 + tolerance) a.

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
        The bracket; ``(limit, inf)`` where the rise is not above the level at any distance tried,
        and ``(0, b)`` where it is at all.
    """

    def above(distance: float) -> bool:
        return not rise(distance) <= level

    low, high = start, start
    if above(start):
        while above(low := low / 2):
            high = low
            if low < start * start / limit:
                return 0.0, high
    else:
        while not above(high := high * 2):
            low = high
            if high > limit:
                return limit, math.inf
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if above(middle) else (middle, high)
    return low, high
