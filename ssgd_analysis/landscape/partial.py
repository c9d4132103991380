"""What is done so far, on disk: a killed landscape goes on where it was."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import make_folder
from ssgd_analysis.landscape.grid import Grid, save_arrays

# a damaged archive may also say that it is encrypted, or compressed in an unknown way
DAMAGE = (OSError, ValueError, KeyError, EOFError, IndexError, RuntimeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class PartialResults:
    """A folder that holds the points computed so far, a file for each grid and process.

    Args:
        folder: made when the first points are kept.
        key: of weights, data and settings; points of another key are refused.
        rank: of this process; it writes its own files, and reads those of all.
    """

    folder: Path
    key: str
    rank: int = 0

    def save(self, number: int, grid: Grid, plan: dict[str, Any]) -> None:
        """Keep a grid as it stands.

        Args:
            number: of the grid.
            grid: with what is done.
            plan: how points are evaluated, so that the rest is evaluated the same way.

        Raises:
            WorkError: the disk is full or the folder not writable.
        """
        arrays = {"key": np.array(self.key), "plan": np.array(json.dumps(plan))}
        arrays |= {"done": grid.done} | grid.values
        save_arrays(make_folder(self.folder) / f"{number}-{self.rank}.npz", arrays)

    def load(self, number: int, grid: Grid) -> dict[str, Any] | None:
        """Fill in what is kept of a grid.

        Returns:
            The plan its points were evaluated by; ``None`` if nothing is kept.

        Raises:
            InputError: a damaged file, or one of another landscape.
        """
        plan = None
        for path in sorted(self.folder.glob(f"{number}-*.npz")):
            with kept_arrays(path) as kept:
                if str(kept["key"]) != self.key:
                    raise InputError(
                        f"{self.folder} holds points of another landscape: name another --out,"
                        " or leave out --resume"
                    )
                done = kept["done"] & ~grid.done
                for name, values in grid.values.items():
                    values[done] = kept[name][done]
                grid.done[done] = True
                plan = json.loads(str(kept["plan"]))
        return plan

    def clear(self) -> None:
        """Remove all that is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def kept_arrays(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of a file that an earlier call kept, to be taken up inside.

    Raises:
        InputError: the file is damaged, or lacks what is looked for inside.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            yield dict(found)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {error}; leave out --resume") from error
