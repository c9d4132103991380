"""Files that are whole or not there, and numbers that are JSON."""

import dataclasses
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssgd_analysis.errors import InputError, WorkError

if TYPE_CHECKING:
    import numpy as np


def cache_folder() -> Path:
    """The folder of files that can be made again: downloaded data, measured plans."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ssgd-analysis"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a reader, or a ``kill -9``, never sees half of it.

    Args:
        path: the file to make or replace.
        write: given a temporary path beside it, writes the content there.

    Raises:
        WorkError: the disk is full or the folder is not writable; an older ``path`` is intact.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.ssgd-tmp{path.suffix}")
    try:
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the rename itself must survive a crash
            finally:
                os.close(folder)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WorkError(f"cannot write {path}: {error.strerror or error}") from error


def is_temporary(path: Path) -> bool:
    """Whether a file is one that :func:`write_atomically` left behind when it was killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.ssgd-tmp(\.\w+)?", path.name) is not None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """Write arrays as an ``.npz`` file, atomically.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    import numpy as np  # the command line imports this module, and must start at once

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically; see :func:`jsonable`."""
    write_text(path, json.dumps(jsonable(value), indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is not there, not readable, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def jsonable(value: object) -> Any:
    """The value as plain JSON types: dataclasses become objects, NaN and infinity ``None``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(entry) for entry in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} is not JSON")


def make_folder(path: Path) -> Path:
    """Make a folder and its parents.

    Raises:
        InputError: a file stands in the way, or the place is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"the folder {path} is not writable")
    return path


def natural_key(name: str) -> list[str | int]:
    """A key that sorts numbers in names by their size: ``sgd-2.pt`` before ``sgd-10.pt``.

    Example:
        >>> sorted(["sgd-10.pt", "sgd-2.pt"], key=natural_key)
        ['sgd-2.pt', 'sgd-10.pt']
    """
    parts = re.split(r"(\d+)", name)  # text and numbers in turn, text first
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
