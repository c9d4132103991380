"""Partial results on disk: a killed landscape can be resumed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.grid import Grid
from ssgd_analysis.store import KeyedStore


@dataclass(frozen=True)
class PartialResults:
    """A folder that holds the points computed so far, a file for each grid and process.

    Args:
        folder: is made when the first points are stored.
        key: of weights, data and settings; points of another key are refused.
        rank: of this process; it writes its own files, and reads those of all.
    """

    folder: Path
    key: str
    rank: int = 0

    @property
    def _store(self) -> KeyedStore:
        return KeyedStore(self.folder)

    def save(self, number: int, grid: Grid, plans: dict[str, Any]) -> None:
        """Store the points of a grid that are done.

        Args:
            number: of the grid.
            grid: with the points computed so far.
            plans: how points are evaluated, so that the rest is evaluated the same way.

        Raises:
            WorkError: the disk is full or the folder not writable.
        """
        arrays = {"done": grid.done} | grid.values
        self._store.write_arrays(f"{number}-{self.rank}", self._key, plans, arrays)

    def load(self, number: int, grid: Grid) -> dict[str, Any] | None:
        """Fill in the stored points of a grid.

        Returns:
            The plans that they were evaluated by; ``None`` if nothing is stored.

        Raises:
            InputError: a damaged file, or one of another landscape.
        """
        plans = None
        for path in sorted(self.folder.glob(f"{number}-*.npz")):
            entry = self._store.read_arrays(path.stem, self._key)
            if entry is None:
                raise InputError(
                    f"{self.folder} holds points of another landscape: name another --out,"
                    " or leave out --resume"
                )
            plans, arrays = entry
            new = arrays["done"] & ~grid.done
            for name, values in grid.values.items():
                values[new] = arrays[name][new]
            grid.done[new] = True
        return plans

    def clear(self) -> None:
        """Remove everything that is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _key(self) -> dict[str, str]:
        return {"fingerprint": self.key}
