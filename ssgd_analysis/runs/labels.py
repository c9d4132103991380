"""Labels before checkpoints, as ``SGD=weights.pt``."""

import re
from collections.abc import Sequence
from pathlib import Path

from ssgd_analysis.errors import InputError

LABELLED = re.compile(r"([^=/\\]+)=(.+)")


def split_labels(names: Sequence[str]) -> list[tuple[str, str]]:
    """The label and the path of every checkpoint; without a label it is the path itself.

    A path that contains = is one if it exists, or if the = comes after a slash.

    Args:
        names: as the user gave them.

    Raises:
        InputError: two checkpoints have the same label.

    Example:
        >>> split_labels(["SGD=sgd.pt", "runs/lr=0.1"])
        [('SGD', 'sgd.pt'), ('runs/lr=0.1', 'runs/lr=0.1')]
    """
    found = [_split(name) for name in names]
    labels = [label for label, path in found if label != path]
    for label in labels:
        if sum(label == other for other, _ in found) > 1:
            raise InputError(f"two checkpoints are called '{label}': give each another label")
    return found


def _split(name: str) -> tuple[str, str]:
    folder, at, step = name.rpartition("@")
    exists = Path(name).exists() or (at and step.isdigit() and Path(folder).exists())
    match = None if exists else LABELLED.fullmatch(name)
    return (match[1].strip(), match[2]) if match else (name, name)
