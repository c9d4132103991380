"""A training run as an animation: its path through a plane, and its loss."""

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.files import write_atomically
from ssgd_analysis.plots.contours import Plane, loss_contours
from ssgd_analysis.plots.marks import outlined
from ssgd_analysis.plots.scale import loss_scale
from ssgd_analysis.plots.style import DOUBLE, colour, panels, short_names, small_print, styled
from ssgd_analysis.plots.words import axis_unit, outside, percent

DPI = 150
SLOWEST, FASTEST = 400, 50  # milliseconds a frame
HOLD = 1500  # milliseconds more on the last frame


@styled
def movie(
    record: dict[str, Any],
    arrays: dict[str, np.ndarray],
    stem: Path,
    *,
    frames: int = 120,
    seconds: float = 8.0,
) -> list[Path]:
    """A point that moves over the contours of its plane, with its trail, and its loss beside.

    Only saved checkpoints are shown, one in each frame; nothing is interpolated between them.

    Args:
        record: of the landscape, as in ``landscape.json``; two-dimensional, with a ``path``.
        arrays: of the landscape, as in ``landscape.npz``.
        stem: files are ``stem.gif`` and, where ffmpeg is installed, ``stem.mp4``; with a number,
            in the order of the record's grids, where there are several.
        frames: the largest number; of more checkpoints some are left out, evenly.
        seconds: the length, roughly; the last frame stays longer.

    Returns:
        The paths.

    Raises:
        InputError: the landscape is no plane with a path.
        WorkError: the disk is full, the folder not writable, or ffmpeg failed.
    """
    grids = record["grids"]
    if "beta" not in arrays or not any(grid.get("path") for grid in grids):
        raise InputError(
            "there is no path to animate: make the landscape with --dims 2 --directions trajectory"
        )
    losses = arrays["loss"].reshape(len(grids), len(arrays["alpha"]), len(arrays["beta"]))
    names = short_names([str(grid["checkpoint"]) for grid in grids], 40)
    paths = []
    for number, grid in enumerate(grids):
        if not grid.get("path"):
            continue
        plane = Plane(arrays["alpha"], arrays["beta"], losses[number])
        figure, moving, show = _scene(record, grid, plane, names[number])
        count = len(grid["path"]["steps"])
        shown = np.unique(np.linspace(0, count - 1, min(count, frames)).round().astype(int))
        pause = int(np.clip(1000 * seconds / len(shown), FASTEST, SLOWEST)) // 10 * 10
        name = f"{stem.name}-{number + 1}" if len(grids) > 1 else stem.name
        path = stem.with_name(f"{name}.gif")
        pictures = _pictures(figure, moving, show, shown)
        paths.append(path)
        write_atomically(path, partial(_save_gif, pictures, pause, record.get("command", "")))
        if FFMpegWriter.isAvailable():
            paths.append(path.with_suffix(".mp4"))
            write_atomically(paths[-1], partial(_save_mp4, figure, show, shown, pause))
    return paths


def _scene(
    record: dict[str, Any], grid: dict[str, Any], plane: Plane, name: str
) -> tuple[Figure, list[Any], Callable[[int], None]]:
    """The figure, what moves in it, and the function that moves it to a checkpoint."""
    path = {key: np.asarray(grid["path"][key], float) for key in ("steps", "alpha", "beta")}
    steps = grid["path"]["steps"]
    losses = grid["path"].get("loss")
    figure, axes = panels(1, 2 if losses else 1, width=DOUBLE / 2, height=2.9)
    figure.set_dpi(DPI)
    split = "train" if record["split"] == "both" else record["split"]
    units = {key: axis_unit(record, key) for key in ("alpha", "beta")}
    labels: dict[str, Any] = {
        f"{axis}label": f"{letter} ({units[key]})" if units[key] else letter
        for axis, letter, key in (("x", "α", "alpha"), ("y", "β", "beta"))
    }
    loss_contours({f"{name}: {split} loss": plane}, axes=axes[:1], **labels)
    axes[0].locator_params(axis="x", nbins=5)
    look: Any = {"color": "white", "lw": 1.2, "zorder": 5, **outlined("black")}
    (trail,) = axes[0].plot([], [], **look)
    (point,) = axes[0].plot([], [], "o", color=colour(2), mec="white", ms=6, mew=1, zorder=6)
    moving: list[Any] = [trail, point]
    if losses:
        moving += _loss_panel(axes[1], steps, np.asarray(losses, float), f"{split} loss")
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]  # notes apart
    small_print(figure, _notes(grid, record.get("command", "")))
    title = axes[-1].set_title(f"step {steps[-1]}", loc="right")

    def show(k: int) -> None:
        trail.set_data(path["alpha"][: k + 1], path["beta"][: k + 1])
        point.set_data(path["alpha"][k : k + 1], path["beta"][k : k + 1])
        if losses:
            moving[2].set_data(path["steps"][: k + 1], np.asarray(losses[: k + 1], float))
            moving[3].set_data(path["steps"][k : k + 1], np.asarray(losses[k : k + 1], float))
        title.set_text(f"step {steps[k]}")

    return figure, [*moving, title], show


def _loss_panel(axes: Axes, steps: list[int], losses: np.ndarray, label: str) -> list[Line2D]:
    axes.plot(steps, losses, color="#bbbbbb", lw=1)
    (passed,) = axes.plot([], [], color=colour(1), lw=1.4)
    (now,) = axes.plot([], [], "o", color=colour(2), mec="white", ms=6, mew=1)
    scale = loss_scale([losses])
    axes.set(xlabel="step", ylabel=f"{label} of the saved checkpoints")
    if scale.log:
        axes.set_yscale("log")
    return [passed, now]


def _notes(grid: dict[str, Any], command: str) -> list[str]:
    """What the plane does not show of the path, and how to make it again."""
    notes = []
    if grid.get("explained_variance"):
        parts = " + ".join(map(percent, grid["explained_variance"]))
        notes.append(f"the axes hold {parts} of the path's variance")
    if outside(grid) is not None:
        notes.append(f"its checkpoints lie up to {outside(grid):.2g} (L2) outside of the plane")
    return ["; ".join(notes), command]


def _pictures(
    figure: Figure, moving: list[Any], show: Callable[[int], None], shown: np.ndarray
) -> list[Image.Image]:
    """One picture for each checkpoint; the parts that do not move are drawn once."""
    canvas = FigureCanvasAgg(figure)
    show(int(shown[-1]))
    canvas.draw()  # the layout, then it stays
    figure.set_layout_engine("none")
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)
    pictures = []
    for k in shown:
        canvas.restore_region(ground)
        show(int(k))
        for artist in moving:
            artist.axes.draw_artist(artist)
        pictures.append(Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB"))
    return pictures


def _save_gif(pictures: list[Image.Image], pause: int, comment: str, path: Path) -> None:
    # one palette and no dither: the still parts stay identical, and the file small
    codes, counts = np.unique(_codes(pictures[-1]), return_counts=True)
    common = np.sort(codes[np.argsort(-counts, kind="stable")[:256]])
    palette = Image.new("P", (1, 1))
    palette.putpalette([code >> shift & 255 for code in common.tolist() for shift in (16, 8, 0)])
    small = []
    for picture in pictures:
        near = np.array(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        codes = _codes(picture)  # Pillow's nearest colour is not exact where an exact one exists
        index = np.searchsorted(common, codes).clip(max=len(common) - 1)
        indices = np.where(common[index] == codes, index, near).astype(np.uint8)
        small.append(Image.fromarray(indices))
        small[-1].putpalette(palette.getpalette() or [])
    times = [pause] * (len(small) - 1) + [pause + HOLD]
    about: dict[str, Any] = {"loop": 0, "comment": comment.encode()}
    small[0].save(path, save_all=True, append_images=small[1:], duration=times, **about)


def _codes(picture: Image.Image) -> np.ndarray:
    """The colour of each pixel as one number."""
    red, green, blue = np.moveaxis(np.asarray(picture).astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _save_mp4(
    figure: Figure, show: Callable[[int], None], shown: np.ndarray, pause: int, path: Path
) -> None:
    writer = FFMpegWriter(fps=round(1000 / pause), codec="h264", extra_args=["-pix_fmt", "yuv420p"])
    held = [*shown, *[shown[-1]] * (HOLD // pause)]
    try:
        with writer.saving(figure, str(path), DPI):
            for k in held:
                show(int(k))
                writer.grab_frame()
    except subprocess.CalledProcessError as error:
        raise WorkError(f"ffmpeg failed to write {path.name}: {error}") from error
