"""What `sharpness` leaves on disk: eigenvectors, and finished checkpoints for a resumed call."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ssgd_analysis.files import make_folder, read_json, write_atomically, write_json
from ssgd_analysis.sharpness.record import Sharpness


def save_vectors(path: Path, found: Sharpness) -> None:
    """Write unit eigenvector i as tensors ``i/PARAMETER``, each of its parameter's shape.

    The file's metadata holds ``eigenvalues`` (a JSON list) and ``operator``.

    Args:
        path: a .safetensors file to make or replace.
        found: what was measured.

    Raises:
        WorkError: a full disk.
    """
    sizes = [shape.numel() for shape in found.parameters.values()]
    tensors = {}
    for index, vector in enumerate(found.vectors.T):
        parts = zip(found.parameters.items(), vector.split(sizes), strict=True)
        for (name, shape), part in parts:
            tensors[f"{index}/{name}"] = part.reshape(shape).contiguous().cpu()
    values = [entry["value"] for entry in found.record["eigenvalues"]]
    facts = {"eigenvalues": json.dumps(values), "operator": found.record["operator"]}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, facts))


def keep(path: Path, key: str, record: dict[str, Any]) -> None:
    """Keep the record of a finished checkpoint.

    Args:
        path: a .json file; its folder is made.
        key: what the record belongs to: weights, examples, settings.
        record: plain values.

    Raises:
        WorkError: a full disk.
    """
    make_folder(path.parent)
    write_json(path, {"key": key, "record": record})


def kept(path: Path, key: str) -> dict[str, Any] | None:
    """The record that was kept under this key, or ``None``.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    found = read_json(path)
    same = isinstance(found, dict) and found.get("key") == key and "record" in found
    return found["record"] if same else None
