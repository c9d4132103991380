"""Vectors over a model's weights, from files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs.named_tensors import named_tensors
from ssgd_analysis.runs.weight_files import read_weight_file

WeightVector = dict[str, Tensor] | Tensor


def read_vectors(path: Path) -> list[WeightVector]:
    """The vectors of one file.

    Args:
        path: a safetensors or torch file with a tensor for each parameter by name, or
            with several vectors as ``i/PARAMETER`` (as ``sharpness --save-vectors`` writes them);
            ``.npy`` with all P entries, or (K, P); ``.npz`` with such arrays.

    Raises:
        InputError: not there, damaged, or of another kind.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix in (".npy", ".npz"):
        return [row for array in _arrays(path) for row in array.reshape(-1, array.shape[-1])]
    tensors = {each.raw: each.tensor for each in named_tensors(read_weight_file(path), path)}
    if not tensors:
        raise InputError(f"{path} does not hold tensors by name")
    vectors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, slash, name = key.partition("/")
        several = slash and number.isdigit()
        vectors.setdefault(number if several else "", {})[name if several else key] = tensor
    return [vectors[number] for number in sorted(vectors, key=lambda n: int(n or -1))]


def _arrays(path: Path) -> list[Tensor]:
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            arrays = [held] if isinstance(held, np.ndarray) else [held[n] for n in held.files]
            if any(np.iscomplexobj(array) for array in arrays):
                raise InputError(f"{path} holds complex numbers")
            found = [torch.from_numpy(np.asarray(array, dtype=float)) for array in arrays]
    except InputError:
        raise
    except Exception as error:  # reading bytes that are no array may raise anything
        raise InputError(f"{path} is damaged or holds no array of numbers: {error}") from error
    if not found or any(array.ndim == 0 for array in found):
        raise InputError(f"{path} does not hold a vector")
    return found
