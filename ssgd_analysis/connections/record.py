"""The record of a connection: every path tried between two networks; drawn, saved, read again."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from ssgd_analysis.connections.connection import Connection
from ssgd_analysis.errors import InputError
from ssgd_analysis.files import (
    jsonable,
    make_folder,
    read_json,
    save_arrays,
    write_json,
    write_text,
)
from ssgd_analysis.records import Record
from ssgd_analysis.settings.pictures import PictureSettings

ARRAYS, DOCUMENT, TABLE = "connect.npz", "connect.json", "connect.csv"


@dataclass(frozen=True, repr=False)
class ConnectionRecord(Record):
    """Paths between two networks, and the barriers on them.

    Args:
        document: the content of ``connect.json``.
        arrays: the content of ``connect.npz``: ``t``, and for each path and split
            ``PATH_SPLIT_loss`` and ``PATH_SPLIT_accuracy``, each of shape (points,).
        found: the paths that were found in this call, by kind, with their weights.
        resumed: whether it was read from a folder where it was finished.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis import Problem, connect
        >>> batch = torch.eye(4), torch.arange(4) % 2
        >>> ends = [Problem(nn.Linear(4, 2), nn.CrossEntropyLoss(), [batch]) for _ in "ab"]
        >>> record = connect(*ends, paths=["line"])
        >>> [(row["path"], row["barrier_train"] >= 0) for row in record.rows()]
        [('line', True)]
    """

    document: dict[str, Any]
    arrays: dict[str, np.ndarray]
    found: dict[str, Connection] = field(default_factory=dict)
    resumed: bool = False

    @property
    def kinds(self) -> list[str]:
        """The kinds of the paths, in order."""
        return [path["path"] for path in self.document["paths"]]

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.document["n_samples"])

    def to_json(self) -> dict[str, Any]:
        """The content of ``connect.json``: plain values, finite numbers."""
        return jsonable(self.document)

    def rows(self) -> list[dict[str, Any]]:
        """One row a path: barriers with their sampling errors, and the relative length."""
        rows = []
        for path in self.document["paths"]:
            row: dict[str, Any] = {"path": path["path"]}
            for name in ("barrier", "accuracy_barrier"):
                for split in self.splits:
                    height = path[name][split] or {"value": None, "stderr": None}
                    row[f"{name}_{split}"] = height["value"]
                    row[f"{name}_{split}_stderr"] = height["stderr"]
            rows.append(row | {"relative_length": path["relative_length"]})
        return rows

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss of the first split along every path.

        Args:
            ax: matplotlib axes to draw into; ``None``: a new figure.

        Returns:
            The axes.
        """
        from ssgd_analysis.pictures.connection import connection_axes

        return connection_axes(self.document, self.arrays, ax)

    def save(
        self,
        folder: Path | str,
        *,
        html: bool = False,
        pictures: PictureSettings | None = None,
    ) -> list[Path]:
        """Write document, arrays, a table with one row a point, and pictures.

        Args:
            folder: is made if it is not there.
            html: also the page ``connect.html`` with all of it.
            pictures: how they look.

        Returns:
            The files written, and weights that were saved when the paths were found.

        Raises:
            WorkError: the disk is full or the folder not writable.
        """
        from ssgd_analysis.connections.page import write_connection_page
        from ssgd_analysis.pictures.connection import connection_pictures

        folder = make_folder(Path(folder))
        (folder / DOCUMENT).unlink(missing_ok=True)  # it would speak of other arrays after a kill
        save_arrays(folder / ARRAYS, self.arrays)
        write_text(folder / TABLE, "\n".join(self._table()) + "\n")
        drawn = connection_pictures(self.document, self.arrays, folder / "connect", style=pictures)
        if html:
            drawn.append(write_connection_page(folder / "connect.html", self.to_json(), drawn[:1]))
        written = {"out": str(folder), "pictures": [str(path) for path in drawn]}
        write_json(folder / DOCUMENT, self.document | written)
        weights = [Path(path) for path in self.document.get("weights", [])]
        return [*(folder / name for name in (DOCUMENT, ARRAYS, TABLE)), *drawn, *weights]

    def _table(self) -> list[str]:
        """Lines of the table: path, t, and losses and accuracies of each split."""
        columns = [f"{split}_{what}" for split in self.splits for what in ("loss", "accuracy")]
        lines = [",".join(["path", "t", *columns])]
        for kind in self.kinds:
            values = [self.arrays["t"], *(self.arrays[f"{kind}_{name}"] for name in columns)]
            rows = zip(*values, strict=True)
            lines += [",".join([kind, *(repr(float(value)) for value in row)]) for row in rows]
        return lines

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Read a record that was saved.

        Raises:
            InputError: there is none, or it is damaged.
        """
        document = read_json(Path(folder) / DOCUMENT)
        try:
            with np.load(Path(folder) / ARRAYS, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            needed = [Path(folder) / TABLE, *map(Path, document["pictures"])]
            if missing := [path for path in needed if not path.is_file()]:
                raise ValueError(f"{missing[0]} is missing")
        except Exception as error:  # a damaged archive may raise anything
            raise InputError(
                f"the connection in {folder} is incomplete or damaged: {error}"
            ) from error
        return cls(document, arrays, resumed=True)
