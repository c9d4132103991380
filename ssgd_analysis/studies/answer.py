"""What a question's answer is."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A sentence and the numbers that it was composed from.

    Args:
        sentence: for the top of the report.
        record: JSON; known keys: ``gains``, ``slopes``, ``pairs``, ``strength``, ``variance``.
    """

    sentence: str
    record: dict[str, Any] = field(default_factory=dict)


def p_text(p: float | None) -> str:
    """As in ``p = 0.02``."""
    return "no p" if p is None else f"p = {p:.2g}"


def seeds_text(count: int) -> str:
    """As in ``10 seeds``."""
    return "1 seed" if count == 1 else f"{count} seeds"
