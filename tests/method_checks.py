"""Checks that every method of the table owes, the next one included."""

from pathlib import Path

from readings import READINGS

from ssgd_analysis.methods import METHODS

TABLE = Path(__file__).parents[1] / "docs" / "methods.md"


def methods_without_docs() -> set[str]:
    """Methods without a row in the table of ``docs/methods.md``."""
    text = TABLE.read_text(encoding="utf-8")
    return {name for name in METHODS if f"| `{name}` |" not in text}


def methods_without_reading() -> set[str]:
    """Methods without a slow reading of their equation, which the conformance tests compare."""
    return set(METHODS) ^ set(READINGS)
