"""Trees of tensors and plain values in one safetensors file: no pickle, and whole or not there."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.weights.tensor_file import save_tensors

_TENSOR, _TUPLE, _PAIRS = "__tensor__", "__tuple__", "__pairs__"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read named tensors and metadata.

    Raises:
        InputError: the file is not there, damaged, truncated or of another kind.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()  # not a dict, and not iterable itself
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise InputError(f"{path} is not a readable tensor file: {first_line(error)}") from error


def save_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors and plain values.

    Raises:
        WorkError: the disk is full or the folder not writable.
        TypeError: something that is neither.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_fold(tree, tensors, ""))
    save_tensors(path, tensors, {"tree": skeleton})


def read_tree(path: Path) -> dict[str, Any]:
    """Read what :func:`save_tree` wrote.

    Raises:
        InputError: the file is not there, damaged or of another kind.
    """
    tensors, metadata = read_tensors(path)
    if "tree" not in metadata:
        raise InputError(f"{path} holds no training state")
    try:
        return _unfold(json.loads(metadata["tree"]), tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds a damaged training state: {error!r}") from error


def _fold(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    if isinstance(value, Tensor):
        key = f"{len(tensors)}{name}"  # two paths may read alike: {1: …} and {"1": …}
        tensors[key] = value
        return {_TENSOR: key}
    if isinstance(value, dict):  # keys may be integers, which JSON would make strings
        return {_PAIRS: [[k, _fold(v, tensors, f"{name}.{k}")] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_fold(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [_fold(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be saved")


def _unfold(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unfold(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_unfold(entry, tensors) for entry in value[_TUPLE])
    return {key: _unfold(entry, tensors) for key, entry in value[_PAIRS]}
