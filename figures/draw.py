"""Draws every picture of the gallery from figures/data alone: ``make figures``."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.files import make_folder
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.pictures.comparison import comparison_pictures
from ssgd_analysis.pictures.connection import connection_pictures
from ssgd_analysis.pictures.landscape import landscape_pictures
from ssgd_analysis.pictures.sharpness import sharpness_pictures
from ssgd_analysis.pictures.tracking import tracking_pictures
from ssgd_analysis.plots import save_figure
from ssgd_analysis.studies.report import study_intervals

HERE = Path(__file__).parent
DATA = HERE / "data"


def record(name: str) -> Any:
    """What a command said, of ``data/NAME.json``."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of ``data/NAME.npz``."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as held:
        return {key: held[key] for key in held.files}


def landscape(name: str, out: Path) -> list[Path]:
    """Lines or planes."""
    return landscape_pictures(record(name), arrays(name), out / name)


def connection(name: str, out: Path) -> list[Path]:
    """Paths from one checkpoint to another."""
    return connection_pictures(record(name), arrays(name), out / name)


def sharpness(name: str, out: Path) -> list[Path]:
    """Spectral densities, and curves over the radius."""
    return sharpness_pictures(record(name), out)


def tracking(name: str, out: Path) -> list[Path]:
    """Sharpness through training."""
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tracking_pictures([json.loads(line) for line in lines], record(name), out / name)


def methods(name: str, out: Path) -> list[Path]:
    """Differences to SGD: a forest plot, and a table of verdicts."""
    return comparison(name, out, ("differences", "verdicts"))


def runs(name: str, out: Path) -> list[Path]:
    """Metric against metric, and rank correlations."""
    return comparison(name, out, ("scatter", "correlations"))


def comparison(name: str, out: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Some pictures of a comparison."""
    found = record(name)
    drawn = comparison_pictures(out, found, found["values"], NAMES, only=kinds)
    return [path for paths in drawn.values() for path in paths]


def study(name: str, out: Path) -> list[Path]:
    """Accuracy and sharpness, method by method."""
    return save_figure(study_intervals(record(name)), out / name)


# data → what draws it
GALLERY: dict[str, Callable[[str, Path], list[Path]]] = {
    "contours": landscape,
    "lines": landscape,
    "connection": connection,
    "eigen": landscape,
    "trajectory": landscape,
    "sharpness": sharpness,
    "edge-of-stability": tracking,
    "methods": methods,
    "runs": runs,
    "digits": study,
}


def main(out: Path) -> None:
    """Draw all pictures into a folder."""
    make_folder(out)
    for name, draw in GALLERY.items():
        for path in draw(name, out):
            print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
