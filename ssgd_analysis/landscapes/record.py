"""The record of a landscape: a document and arrays, to be drawn, saved and read again."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import (
    is_temporary,
    jsonable,
    make_folder,
    read_json,
    save_arrays,
    write_json,
)
from ssgd_analysis.landscapes.export import point_rows, write_csv, write_vtk
from ssgd_analysis.records import Record
from ssgd_analysis.settings.pictures import PictureSettings

ARRAYS, DOCUMENT, PARTIAL = "landscape.npz", "landscape.json", "landscape.partial"


@dataclass(frozen=True, repr=False)
class LandscapeRecord(Record):
    """Losses on lines or planes through weight space, and how they were made.

    Args:
        document: the content of ``landscape.json``.
        arrays: the content of ``landscape.npz``: ``alpha``, ``beta`` (2-D), ``loss``,
            ``accuracy``, with a test split ``test_loss`` and ``test_accuracy``, with ``adaptive``
            ``measured``; values with a leading axis for checkpoints and one for repeats, each
            only where there are several.
        resumed: whether it was read from a folder where it was finished.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis import LandscapeSettings, Problem, landscape
        >>> batch = torch.eye(4), torch.arange(4) % 2
        >>> problem = Problem(nn.Linear(4, 2), nn.CrossEntropyLoss(), [batch])
        >>> record = landscape(problem, LandscapeSettings(points=5, span=1.0))
        >>> record.arrays["alpha"].tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
        >>> record.arrays["loss"].shape
        (5,)
    """

    document: dict[str, Any]
    arrays: dict[str, np.ndarray]
    resumed: bool = False

    @property
    def grids(self) -> list[dict[str, Any]]:
        """Facts about each grid: checkpoints × repeats."""
        return self.document["grids"]

    @property
    def units(self) -> dict[str, str]:
        """Units of the coordinates."""
        return self.document["units"]

    @property
    def plans(self) -> dict[str, dict[str, Any]]:
        """How the points of the first grid were evaluated, by split."""
        return self.document["plan"]

    def to_json(self) -> dict[str, Any]:
        """The content of ``landscape.json``: plain values, finite numbers."""
        return jsonable(self.document)

    def rows(self) -> list[dict[str, Any]]:
        """One row a point, as in ``landscape.csv``."""
        return list(point_rows(self.document, self.arrays))

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss: all lines, or the first plane.

        Args:
            ax: matplotlib axes to draw into; ``None``: a new figure.

        Returns:
            The axes.
        """
        from ssgd_analysis.pictures.landscape import landscape_axes

        return landscape_axes(self.document, self.arrays, ax)

    def save(
        self,
        folder: Path | str,
        *,
        html: bool = False,
        movie: bool = False,
        pictures: PictureSettings | None = None,
    ) -> list[Path]:
        """Write arrays, document, pictures, a table, and of planes files for ParaView.

        A landscape that was saved in the folder before is removed, and so are partial results.

        Args:
            folder: is made if it is not there.
            html: also an interactive page in one file, and of planes surfaces as pictures.
            movie: also an animation of the trajectory (a plane only).
            pictures: how they look.

        Returns:
            The files written.

        Raises:
            WorkError: the disk is full or the folder not writable.
        """
        folder = make_folder(Path(folder))
        there = self.finished(folder, self.document["fingerprint"])
        if there is None or not _same_arrays(there.arrays, self.arrays):
            _remove_document(folder)
            save_arrays(folder / ARRAYS, self.arrays)
        drawn = self._draw(folder / "landscape", html=html, movie=movie, style=pictures)
        document = self.document | {
            "out": str(folder),
            "pictures": [str(path) for path in drawn],
        }
        write_json(folder / DOCUMENT, document)
        _sweep(folder)
        return [folder / ARRAYS, folder / DOCUMENT, *drawn]

    def _draw(
        self, stem: Path, *, html: bool, movie: bool, style: PictureSettings | None
    ) -> list[Path]:
        """All that follows from document and arrays alone."""
        from ssgd_analysis import plots
        from ssgd_analysis.pictures.landscape import landscape_pictures

        record, arrays = self.document, self.arrays
        written = landscape_pictures(record, arrays, stem, style=style, surface=html)
        written.append(write_csv(record, arrays, stem.with_suffix(".csv")))
        if record["settings"]["dims"] == 2:
            written += write_vtk(record, arrays, stem)
        if html:
            written.append(plots.surface_html(record, arrays, stem.with_suffix(".html")))
        if movie:
            written += plots.movie(record, arrays, stem)
        return written

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
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            if shapes != document["axes"]:
                raise ValueError("the arrays do not have the shapes that the document gives")
        except Exception as error:  # a damaged archive may raise anything
            raise InputError(
                f"the landscape in {folder} is incomplete or damaged: {error}"
            ) from error
        return cls(document, arrays, resumed=True)

    @classmethod
    def finished(cls, folder: Path, fingerprint: str) -> Self | None:
        """The record in a folder if it is whole and has this fingerprint."""
        try:
            found = cls.read(folder)
        except InputError:
            return None
        return found if found.document.get("fingerprint") == fingerprint else None


def _same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(array, other[name], equal_nan=array.dtype.kind == "f")
        for name, array in one.items()
    )


def _remove_document(folder: Path) -> None:
    """Remove an older document and its pictures before new arrays are written.

    A kill in between must not leave an old document beside new numbers.
    """
    document = folder / DOCUMENT
    if not document.is_file():
        return
    with contextlib.suppress(InputError, AttributeError, TypeError):
        for picture in map(Path, read_json(document).get("pictures") or []):
            if picture.parent == folder and picture.name.startswith("landscape"):
                picture.unlink(missing_ok=True)
    document.unlink()


def _sweep(folder: Path) -> None:
    """Remove partial results, and temporary files that a kill left behind."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    for left in folder.glob(".landscape*"):
        if is_temporary(left):
            left.unlink(missing_ok=True)
