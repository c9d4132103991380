"""Pictures as files, with what they show in their metadata."""

import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ssgd_analysis.files import jsonable, write_atomically
from ssgd_analysis.plots.style import styled


@styled
def png_bytes(figure: Figure) -> bytes:
    """A figure as a PNG file in memory, at the resolution that :func:`save_figure` has."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=_resolution(figure))
    return written.getvalue()


def _resolution(figure: Figure) -> float:
    return max(150, 1000 / figure.get_figwidth())  # small ones are looked at enlarged


@styled
def save_figure(
    figure: Figure, stem: Path, *, title: str = "", record: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.pdf``; the same figure gives the same bytes.

    Args:
        figure: the picture.
        stem: path without the ending.
        title: written into the files' metadata.
        record: what is shown: its ``command`` becomes the PNG's ``Description`` and the PDF's
            ``Subject``; all of it, as JSON, the PNG's ``Settings`` and the PDF's ``Keywords``.

    Returns:
        The two paths.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    record = record or {}
    command, settings = str(record.get("command", "")), json.dumps(jsonable(dict(record)))
    texts: dict[str, dict[str, Any]] = {
        "png": {"Title": title, "Description": command, "Settings": settings},
        "pdf": {"Title": title, "Subject": command, "Keywords": settings},
    }
    dpi = _resolution(figure)
    paths = []
    for kind, entries in texts.items():
        path = stem.with_name(f"{stem.name}.{kind}")
        metadata: dict[str, Any] = {
            key: text for key, text in entries.items() if text not in ("", "{}")
        }
        if kind == "pdf":
            metadata["CreationDate"] = None  # so that the same picture gives the same file
        write_atomically(path, partial(figure.savefig, dpi=dpi, metadata=metadata))
        paths.append(path)
    return paths
