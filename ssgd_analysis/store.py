"""Results on disk, each valid only for the key that it was computed from."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import jsonable, make_folder, read_json, write_atomically, write_json

Key = Mapping[str, Any]
# a damaged archive may also say that it is encrypted, or compressed in an unknown way
DAMAGE = (OSError, ValueError, KeyError, EOFError, IndexError, RuntimeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class KeyedStore:
    """A folder of entries. Each has a name, its file, and a key: all that its value depends on.

    An entry is found again under the same name and an equal key; under another key it counts as
    absent, and writing replaces it. A file is whole or not there, also after a kill.

    Args:
        folder: is made when the first entry is written.

    Example:
        >>> import tempfile
        >>> store = KeyedStore(Path(tempfile.mkdtemp()) / "results")
        >>> _ = store.write("000", {"weights": "1f3a", "samples": 64}, {"loss": 0.25})
        >>> store.read("000", {"weights": "1f3a", "samples": 64})
        {'loss': 0.25}
        >>> store.read("000", {"weights": "99ab", "samples": 64}) is None
        True
    """

    folder: Path

    def path(self, name: str, *, arrays: bool = False) -> Path:
        """The file of an entry: ``.json``, or ``.npz`` of one with arrays."""
        return self.folder / f"{name}.{'npz' if arrays else 'json'}"

    def read(self, name: str, key: Key) -> Any:
        """The value of an entry, or ``None`` where there is none of this key.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            found = read_json(path)
        except InputError as error:
            raise _damaged(path, error) from error
        same = isinstance(found, dict) and found.get("key") == jsonable(key)
        return found.get("value") if same else None

    def write(self, name: str, key: Key, value: Any) -> Path:
        """Write an entry, replacing one of the same name.

        Args:
            name: of the file, without its ending.
            key: plain values, as in :func:`ssgd_analysis.files.jsonable`.
            value: plain values; NaN and infinity become ``None``.

        Returns:
            The file.

        Raises:
            InputError: the folder can't be made.
            WorkError: the disk is full or the folder not writable.
        """
        make_folder(self.folder)
        write_json(self.path(name), {"key": key, "value": value})
        return self.path(name)

    def read_arrays(self, name: str, key: Key) -> tuple[Any, dict[str, np.ndarray]] | None:
        """The value and the arrays of an entry, or ``None`` where there is none of this key.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path(name, arrays=True)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                found = dict(archive)
            head = json.loads(str(found.pop("entry")))
            same = head["key"] == jsonable(key)
            return (head["value"], found) if same else None
        except DAMAGE as error:
            raise _damaged(path, error) from error

    def write_arrays(
        self, name: str, key: Key, value: Any, arrays: Mapping[str, np.ndarray]
    ) -> Path:
        """Write an entry with arrays, of any name but ``entry``; see :meth:`write`."""
        make_folder(self.folder)
        path = self.path(name, arrays=True)
        head = np.array(json.dumps(jsonable({"key": key, "value": value})))

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, entry=head, **arrays)  # type: ignore[arg-type]

        write_atomically(path, write)
        return path


def digest(key: Key) -> str:
    """A short hash of a key: the name of an entry that has no name of its own."""
    text = json.dumps(jsonable(key), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged: {error}; remove it, and its content is computed again")
