"""What ``ssgd-analyze landscape`` leaves: the record's own command, plans, and all files."""

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssgd_analysis.cli.options import command_line

if TYPE_CHECKING:
    from ssgd_analysis.landscape import LandscapeSettings


def command(
    checkpoints: tuple[str, ...],
    settings: "LandscapeSettings",
    options: dict[str, Any],
    out: Path,
) -> str:
    """The command line that makes the same landscape again."""
    values = dataclasses.asdict(settings)
    if settings.directions == "between":
        del values["normalize"], values["biases"]
    values["no_curvature"] = not values.pop("curvature")
    for name in ("split", "samples", "batch_size", "model", "data", "loss", "count", "dtype"):
        values[name] = options[name]
    for name in ("device", "data_dir", "plan", "vectors", "tune", "html", "movie"):
        values[name] = options[name]
    values["out"] = out
    return command_line("landscape", checkpoints, values)


def plans(text: str | None, split: str) -> dict[str, dict[str, Any]]:
    """How points are evaluated, of "WAY:CHUNK" for one split or "WAY:CHUNK,WAY:CHUNK" for both."""
    from ssgd_analysis.errors import InputError

    names = ("main", "test") if split == "both" else ("main",)
    parts = [part.partition(":") for part in text.split(",")] if text else []
    if text and not (len(parts) == len(names) and all(chunk.isdigit() for _, _, chunk in parts)):
        example = ",".join(["traced:128"] * len(names))
        raise InputError(f"--plan '{text}' should be like {example}")
    return {
        name: {"way": way, "chunk": int(chunk)}
        for name, (way, _, chunk) in zip(names, parts, strict=False)
    }


def plan_text(plans: dict[str, dict[str, Any]]) -> str:
    """The same as text, for ``--plan``."""
    return ",".join(f"{plan['way']}:{plan['chunk']}" for plan in plans.values())


def finished(out: Path, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Record and arrays of the same call, if it came to its end."""
    import numpy as np

    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import read_json

    try:
        found = read_json(out / "landscape.json")
    except InputError:
        return None
    if not isinstance(found, dict) or found.get("fingerprint") != record["fingerprint"]:
        return None
    try:
        with np.load(out / "landscape.npz", allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except Exception:  # not there, or damaged: it is computed again
        return None
    whole = {name: list(array.shape) for name, array in arrays.items()} == found.get("axes")
    return (found, arrays) if whole else None


def draw(
    record: dict[str, Any], arrays: dict[str, Any], out: Path, options: dict[str, Any]
) -> list[str]:
    """Pictures, and what else was asked for, from the record and the arrays alone."""
    from ssgd_analysis import plots
    from ssgd_analysis.landscape.export import write_csv, write_vtk
    from ssgd_analysis.pictures.landscape import landscape_pictures

    stem = out / "landscape"
    written = landscape_pictures(record, arrays, stem)
    written.append(write_csv(record, arrays, out / "landscape.csv"))
    if record["settings"]["dims"] == 2:
        written += write_vtk(record, arrays, stem)
    if options["html"]:
        written.append(plots.surface_html(record, arrays, out / "landscape.html"))
    if options["movie"]:
        written += plots.movie(record, arrays, stem)
    return [str(path) for path in written]


def replace(out: Path, arrays: dict[str, Any]) -> None:
    """Put new arrays in the place of an older landscape: its record goes first.

    A kill in between must not leave the old record beside new numbers.
    """
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import read_json
    from ssgd_analysis.landscape import save_arrays

    record = out / "landscape.json"
    if record.is_file():
        with contextlib.suppress(InputError, AttributeError, TypeError):
            for picture in map(Path, read_json(record).get("pictures") or []):
                if picture.parent == out and picture.name.startswith("landscape"):
                    picture.unlink(missing_ok=True)
        record.unlink()
    save_arrays(out / "landscape.npz", arrays)


def sweep(out: Path) -> None:
    """Remove what was kept for a resume, and temporary files that a kill left behind."""
    from ssgd_analysis.files import is_temporary

    shutil.rmtree(out / "landscape.partial", ignore_errors=True)
    for left in out.glob(".landscape*"):
        if is_temporary(left):
            left.unlink(missing_ok=True)
