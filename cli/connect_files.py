"""What ``ssgd-analyze connect`` leaves on disk."""

from pathlib import Path
from typing import Any

SPLITS = ("train", "test")


def columns(done: Any) -> dict[str, Any]:
    """The arrays of a path by name."""
    arrays = {"t": done.profiles["train"].t}
    for split, profile in done.profiles.items():
        arrays |= {f"{split}_loss": profile.loss, f"{split}_accuracy": profile.accuracy}
    return arrays


def keep(place: Path, key: str, record: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Keep a finished path."""
    import json

    import numpy as np

    from ssgd_analysis.landscape import save_arrays

    whole = {"key": np.array(key), "record": np.array(json.dumps(record)), **arrays}
    save_arrays(place, whole)


def kept(place: Path, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A finished path's record and arrays; ``None``: there is none of this key."""
    import json

    from ssgd_analysis.landscape.partial import kept_arrays

    if not place.is_file():
        return None
    with kept_arrays(place) as arrays:
        if str(arrays.pop("key")) != key:
            return None
        return json.loads(str(arrays.pop("record"))), arrays


def weights(out: Path, kind: str, bends: int) -> list[Path]:
    """Where a path's weights are kept."""
    count = {"line": 0, "matched": 1, "bezier": 1, "chain": bends}[kind]
    if kind == "matched":
        return [out / "weights" / "matched.safetensors"]
    return [out / "weights" / f"{kind}-{k}.safetensors" for k in range(1, count + 1)]


def saved(out: Path, kind: str, bends: int) -> bool:
    """Whether all of a path's weights are there."""
    return all(path.is_file() for path in weights(out, kind, bends))


def save(done: Any, out: Path, problem: Any, calibration: list[Any]) -> None:
    """The second network permuted, or each bend; with BatchNorm's statistics as measured."""
    from ssgd_analysis.connections import put
    from ssgd_analysis.files import make_folder
    from ssgd_analysis.problem.recalibration import recalibration
    from ssgd_analysis.runs.tensors import save_tensors
    from ssgd_analysis.weights import borrowed_state

    path, kind = done.path, done.record["path"]
    points = [path.at(1.0)] if kind == "matched" else []
    for k, bend in enumerate(path.bends, start=1):
        points.append({**path.at(k / (len(path.bends) + 1)), **bend})
    make_folder(out / "weights")
    for point, file in zip(points, weights(out, kind, len(path.bends)), strict=True):
        with borrowed_state(path.model):
            put(path.model, point)
            if calibration and kind != "matched":
                recalibration(problem, calibration)()
            save_tensors(file, path.model.state_dict(), {"path": kind})


def finished(out: Path, identity: dict[str, str]) -> dict[str, Any] | None:
    """The answer of the same call, if it came to its end and all that it wrote is there."""
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import read_json

    try:
        found = read_json(out / "connect.json")
    except InputError:
        return None
    if not isinstance(found, dict) or any(found.get(k) != v for k, v in identity.items()):
        return None
    files = [out / "connect.npz", out / "connect.csv", *map(Path, found["pictures"])]
    return found if all(path.is_file() for path in files) else None


def write(
    record: dict[str, Any], arrays: dict[str, Any], kinds: tuple[str, ...], out: Path
) -> list[str]:
    """Arrays, table and pictures; returns the pictures' paths."""
    from ssgd_analysis.files import write_text
    from ssgd_analysis.landscape import save_arrays
    from ssgd_analysis.pictures.connection import connection_pictures

    save_arrays(out / "connect.npz", arrays)
    columns = [f"{split}_{what}" for split in SPLITS for what in ("loss", "accuracy")]
    lines = [",".join(["path", "t", *columns])]
    for kind in kinds:
        rows = zip(arrays["t"], *(arrays[f"{kind}_{column}"] for column in columns), strict=True)
        lines += [",".join([kind, *(repr(float(value)) for value in row)]) for row in rows]
    write_text(out / "connect.csv", "\n".join(lines) + "\n")
    return [str(path) for path in connection_pictures(record, arrays, out / "connect")]
