"""How the size of weight noise goes through training."""

import math

SCHEDULES = ("constant", "linear", "cosine", "sqrt")


def multiple(schedule: str, end: float, along: float) -> float:
    """The multiple of the noise scale at a share ``along`` of its course, from 1 to ``end``."""
    progress = {
        "constant": 0.0,
        "linear": along,
        "cosine": (1 - math.cos(math.pi * along)) / 2,
        "sqrt": math.sqrt(along),
    }[schedule]
    return 1 + (end - 1) * progress
