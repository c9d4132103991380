"""The picture of a connection from its record and arrays alone, so that it can be drawn again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.files import jsonable
from ssgd_analysis.pictures.paper import paper_of
from ssgd_analysis.plots import Walk, connection_figure, save_figure
from ssgd_analysis.plots.style import on_paper, short_names
from ssgd_analysis.settings.pictures import PictureSettings

VOLATILE = ("out", "pictures", "weights")  # where files lie: filled in later, or changed


def connection_pictures(
    record: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    stem: Path,
    *,
    style: PictureSettings | None = None,
) -> list[Path]:
    """Draw loss and accuracy along every path, train beside test.

    Args:
        record: as in ``connect.json``.
        arrays: as in ``connect.npz``.
        stem: path of the picture without the ending.
        style: how it looks.

    Returns:
        Paths (PNG, PDF).

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    record = jsonable(record)  # the same with NaN as with null, which is read back
    walks = _walks(record, arrays, list(record["n_samples"]))
    settings = {key: value for key, value in record.items() if key not in VOLATILE}
    settings["paths"] = [{**found, "cost": _untimed(found["cost"])} for found in record["paths"]]
    title = f"Connection: {' – '.join(record['checkpoints'])}"
    first, second = short_names(record["checkpoints"], 16)
    with on_paper(paper_of(style)):
        figure = connection_figure(walks, ends=(first, second), notes=[_small_print(record)])
    return save_figure(figure, stem, title=title, record=settings)


def connection_axes(
    record: dict[str, Any], arrays: Mapping[str, np.ndarray], axes: Any = None
) -> Any:
    """Draw the loss of the first split along every path.

    Args:
        record: as in ``connect.json``.
        arrays: as in ``connect.npz``.
        axes: matplotlib axes; ``None``: a new figure.

    Returns:
        The axes.
    """
    record = jsonable(record)
    (split,) = list(record["n_samples"])[:1]
    losses = {n: np.full_like(a, np.nan) if "accuracy" in n else a for n, a in arrays.items()}
    first, second = short_names(record["checkpoints"], 16)
    notes = [_small_print(record)]
    walks = _walks(record, losses, [split])
    figure = connection_figure(walks, ends=(first, second), notes=notes, axes=axes)
    return figure.axes[0] if axes is None else axes


def _walks(
    record: dict[str, Any], arrays: Mapping[str, np.ndarray], splits: Sequence[str]
) -> dict[str, dict[str, Walk]]:
    """The paths of each split."""
    walks: dict[str, dict[str, Walk]] = {split: {} for split in splits}
    for found in record["paths"]:
        for split, own in walks.items():
            loss, accuracy = (arrays[f"{found['path']}_{split}_{w}"] for w in ("loss", "accuracy"))
            top = found["barrier"][split]["at"] or 0.0
            own[found["path"]] = Walk(arrays["t"], loss, accuracy, top)
    return walks


def _untimed(cost: dict[str, Any]) -> dict[str, Any]:
    """The cost without its seconds, which differ each time."""
    return {key: value for key, value in cost.items() if key != "seconds"}


def _small_print(record: dict[str, Any]) -> str:
    chosen, sizes = record["settings"], record["n_samples"]
    says = [
        " – ".join(short_names(record["checkpoints"], 40)),
        " and ".join(f"{count} {split}" for split, count in sizes.items()) + " examples",
        f"{chosen['points']} points",
        f"BatchNorm {chosen['bn']}",
    ]
    if any(found["cost"]["gradients"] for found in record["paths"]):
        says.append(f"curves: {chosen['epochs']} epochs, Adam, lr {chosen['lr']:g}")
    return "; ".join([*says, f"seed\N{NO-BREAK SPACE}{chosen['seed']}"])
