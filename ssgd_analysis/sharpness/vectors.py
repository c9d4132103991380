"""Eigenvectors on disk."""

import json
from pathlib import Path

from safetensors.torch import save_file

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import write_atomically
from ssgd_analysis.sharpness.record import SharpnessRecord


def save_vectors(path: Path, found: SharpnessRecord) -> None:
    """Write unit eigenvector i as tensors ``i/PARAMETER``, each of its parameter's shape.

    The file's metadata holds ``eigenvalues`` (a JSON list) and ``operator``.

    Args:
        path: a .safetensors file to make or replace.
        found: measured now; one that was read from disk has no vectors.

    Raises:
        InputError: the record has no vectors.
        WorkError: the disk is full.
    """
    if found.vectors is None or found.parameters is None:
        raise InputError(f"{found.name}: a record that was read from disk holds no eigenvectors")
    sizes = [shape.numel() for shape in found.parameters.values()]
    tensors = {}
    for index, vector in enumerate(found.vectors.T):
        parts = zip(found.parameters.items(), vector.split(sizes), strict=True)
        for (name, shape), part in parts:
            tensors[f"{index}/{name}"] = part.reshape(shape).contiguous().cpu()
    values = [entry["value"] for entry in found.document["eigenvalues"]]
    facts = {"eigenvalues": json.dumps(values), "operator": found.document["operator"]}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, facts))
