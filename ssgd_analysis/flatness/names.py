"""Metrics by name, with settings, as users write them."""

from collections.abc import Sequence
from typing import Any

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.flatness.table import METRICS


def parse_metric(text: str) -> tuple[str, dict[str, Any]]:
    """A metric and settings out of ``NAME`` or ``NAME:setting=value,…``.

    Returns:
        The name in :data:`METRICS` and the settings that were given.

    Raises:
        InputError: an unknown metric or setting, or a value of another type.

    Example:
        >>> parse_metric("expected:sigma=0.2,law=binary")
        ('expected', {'sigma': 0.2, 'law': 'binary'})
    """
    name, _, settings = text.partition(":")
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    try:
        found = METRICS[name].settings(settings)
    except InputError as error:
        raise InputError(f"metric {name}: {error}") from error
    if found.get("scale") == "element":  # another word for it
        found["scale"] = "weight"
    return name, found


def all_metrics(texts: Sequence[str]) -> tuple[str, ...]:
    """The metrics that were asked for, each once; ``all`` stands for every name of the table.

    Example:
        >>> found = all_metrics(["expected:sigma=0.2", "all"])
        >>> (found[0], "expected" in found, "all" in found)
        ('expected:sigma=0.2', True, False)
    """
    whole = [name for text in texts for name in (METRICS if text == "all" else [text])]
    return tuple(dict.fromkeys(whole))
