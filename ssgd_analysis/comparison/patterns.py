"""Groups of files as they are written on a command line: ``LABEL=PATTERN``."""

import glob
from collections.abc import Sequence
from pathlib import Path

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import natural_key


def group_files(given: Sequence[str]) -> dict[str, list[str]]:
    """Label → files, of every ``LABEL=PATTERN``.

    A pattern is a path or a glob. What it matches is sorted with numbers by their size, so that
    ``sgd-2.pt`` stands before ``sgd-10.pt``; the patterns of one label follow one another.

    Raises:
        InputError: no label, or a pattern that matches nothing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for seed in (10, 2):
        ...     _ = (folder / f"sgd-{seed}.pt").write_bytes(b"")
        >>> found = group_files([f"SGD={folder}/sgd-*.pt"])
        >>> [Path(path).name for path in found["SGD"]]
        ['sgd-2.pt', 'sgd-10.pt']
    """
    found: dict[str, list[str]] = {}
    for text in given:
        label, pattern = split_pair(text, "--group LABEL=PATTERN")
        found.setdefault(label, []).extend(_matches(text, pattern))
    return found


def split_pair(text: str, form: str) -> tuple[str, str]:
    """Both sides of the first =.

    Args:
        text: what was written.
        form: what should have been, for the error.

    Raises:
        InputError: a side is missing.
    """
    left, _, right = text.partition("=")
    if not left.strip() or not right.strip():
        raise InputError(f"'{text}' should be written as {form}")
    return left.strip(), right.strip()


def labelled(given: Sequence[str]) -> dict[str, str]:
    """Label → method, of every ``LABEL=METHOD[:NAME=VALUE,…]``.

    Raises:
        InputError: no label, or one that is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        label, method = split_pair(text, "--trained-with LABEL=METHOD[:NAME=VALUE,…]")
        if label in found:
            raise InputError(f"--trained-with names {label} twice: give one method for a group")
        found[label] = method
    return found


def _matches(text: str, pattern: str) -> list[str]:
    path = Path(pattern).expanduser()
    if path.exists():
        return [str(path)]
    found = sorted(glob.glob(str(path), recursive=True), key=natural_key)  # noqa: PTH207 (absolute too)
    if not found:
        raise InputError(
            f"--group {text}: no file matches {pattern} in {Path.cwd()}: check the folder, and"
            " quote the pattern"
        )
    return found
