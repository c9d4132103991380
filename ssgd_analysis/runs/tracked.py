"""What ``train --track`` can measure as a run trains, by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssgd_analysis.errors import InputError, unknown


@dataclass(frozen=True)
class TrackedQuantity:
    """One thing that can be tracked: what its number counts, by default and at least."""

    default: int
    least: int
    summary: str


QUANTITIES = {
    "sharpness": TrackedQuantity(1, 1, "the N largest eigenvalues of the Hessian"),
    "trace": TrackedQuantity(16, 2, "the Hessian's trace, N probes"),
    "third-order": TrackedQuantity(
        8, 2, "the symmetric gradient beside the slope of Tr(ΣH)/2, N draws"
    ),
}


def spelled_out(texts: Sequence[str]) -> list[str]:
    """``KIND`` or ``KIND:N`` texts as ``KIND:N``, in the order of :data:`QUANTITIES`.

    Raises:
        InputError: an unknown kind, one given twice, or a number that is none or too small.

    Example:
        >>> spelled_out(["trace", "sharpness:5"])
        ['sharpness:5', 'trace:16']
    """
    found: dict[str, int] = {}
    for text in texts:
        name, colon, number = str(text).partition(":")
        if name not in QUANTITIES:
            raise unknown("--track", name, QUANTITIES)
        if name in found:
            raise InputError(f"--track {name} is given twice")
        kind = QUANTITIES[name]
        found[name] = int(number) if number.isdecimal() else 0 if colon else kind.default
        if found[name] < kind.least:
            raise InputError(
                f"--track {text} should be {name} or {name}:N with a whole number N ≥ {kind.least}"
            )
    return [f"{name}:{found[name]}" for name in QUANTITIES if name in found]
