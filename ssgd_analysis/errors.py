"""The two ways a command can fail, and the nearest-name help that goes with them."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The input or the usage is wrong (exit status 2). One line, naming fault and remedy.

    Example:
        >>> from ssgd_analysis import LandscapeSettings
        >>> try:
        ...     LandscapeSettings(directions="eigne")
        ... except InputError as error:
        ...     print(str(error).partition(" (known")[0])
        unknown directions 'eigne': did you mean 'eigen'?
    """


class WorkError(RuntimeError):
    """The work itself failed: diverged, disk full (exit status 1). One line.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem
        >>> x, y = torch.eye(2), torch.full((2, 1), float("nan"))
        >>> problem = Problem(torch.nn.Linear(2, 1), torch.nn.MSELoss(), [(x, y)])
        >>> try:
        ...     problem.check()
        ... except WorkError as error:
        ...     print(error)
        the loss is nan at these weights
    """


class OutOfTimeError(WorkError):
    """The time budget ended before something was measured."""

    def __init__(self) -> None:
        super().__init__("the time budget ended before it was measured: give it more time")


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is in no table, with the nearest name that is.

    Args:
        kind: what was looked up, e.g. ``"method"``.
        name: what the user wrote.
        known: the names that exist.

    Example:
        >>> str(unknown("method", "s-sdg", ["sgd", "s-sgd"]))
        "unknown method 's-sdg': did you mean 's-sgd'? (known: sgd, s-sgd)"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return InputError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})")


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
