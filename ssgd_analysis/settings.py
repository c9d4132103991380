"""Settings of any kind: whether a value fits its type."""

from typing import Any


def is_kind(kind: Any, value: Any) -> bool:
    """Whether a value is of a kind; whole numbers are also floats, booleans are no numbers."""
    allowed = (int, float) if kind is float else (kind,)
    return isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)
