"""Weight files and folders of any origin, opened by content; no code in them is ever run."""

import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.files import read_json
from ssgd_analysis.runs.tensors import read_tensors

INDEX = ".index.json"
# Files of a folder in the order of Hugging Face's own search.
_WHOLE = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
)
_SAFETENSORS, _ZIP, _PICKLE, _LFS = b"{", b"PK\x03\x04", b"\x80", b"version https://git-lfs"


class _Nothing:
    """Takes the place of an object that holds no weights; nothing of the object is made."""

    def __new__(cls, *arguments: Any, **named: Any) -> "_Nothing":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _List(list[Any]):
    """Takes the place of a ``collections.deque``."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()


def _dictionary(*arguments: Any) -> OrderedDict[Any, Any]:
    """Takes the place of ``collections.defaultdict``, without its default."""
    return OrderedDict()


# What training scripts commonly save beside the weights.
_REPLACED = {
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "builtins": ("dict", "list", "int", "float"),  # of a defaultdict
    "datetime": ("date", "datetime", "timedelta", "timezone"),
    **dict.fromkeys(
        ("pathlib", "pathlib._local"),
        ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    ),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "typing": ("Any",),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": (
        *("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode"),
        *("BytesNode", "EnumNode", "PathNode"),
    ),
    "pytorch_lightning.callbacks.model_checkpoint": ("ModelCheckpoint",),
    "pytorch_lightning.callbacks.early_stopping": ("EarlyStopping",),
}
_CONTAINERS: list[Any] = [
    (_List, "collections.deque"),
    (_dictionary, "collections.defaultdict"),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
    (OrderedDict, "lightning.fabric.utilities.data.AttributeDict"),
]


def read_weight_file(path: Path) -> Any:
    """The content of a weight file, or of the one in a folder.

    The first bytes decide the kind, not the name: safetensors, a torch file (also of before
    torch 1.6), or an index in JSON of several such files. Torch files are opened weights-only;
    plain records beside the weights, such as ``argparse.Namespace``, are replaced by nothing.

    Args:
        path: a file, or a folder as Hugging Face's libraries write it.

    Returns:
        What was saved: usually nested dicts with tensors in them.

    Raises:
        InputError: not there, damaged, of another kind, or a pickle that needs more than
            tensors and plain values.
    """
    if path.is_dir():
        path = _weights_of(path)
    if path.name.endswith(INDEX):
        return _shards(path)
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
    if not start:
        raise InputError(f"{path} is empty")
    if start.startswith(_LFS):
        raise InputError(f"{path} is a pointer of Git LFS: get the file itself with `git lfs pull`")
    if start.startswith((_ZIP, _PICKLE)):
        return _torch_file(path)
    if start[8:9] == _SAFETENSORS:
        return read_tensors(path)[0]
    raise InputError(f"{path} is neither a safetensors file nor one that torch.save wrote")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights under one of Hugging Face's names."""
    return any((folder / name).is_file() for name in _WHOLE)


def _weights_of(folder: Path) -> Path:
    """The weight file of a folder: by its usual name, or the only one there is."""
    for name in _WHOLE:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob(f"*{INDEX}")) or sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    found = f"{len(others)} of them" if others else "no weight file with a usual name"
    raise InputError(f"{folder} holds {found}: name the weight file itself")


def _shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names."""
    held = read_json(index)
    names = held.get("weight_map") if isinstance(held, dict) else None
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise InputError(f"{index} is no index of weight files: it has no 'weight_map' of names")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(names.values()):
        if Path(name).name != name:
            raise InputError(f"{index} names '{name}', which is not a file beside it")
        if not (index.parent / name).is_file():
            raise InputError(f"{index} names {name}, which is not there: copy all of the files")
        part = read_weight_file(index.parent / name)
        tensors |= part if isinstance(part, dict) else {}
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InputError(f"{index} names tensor '{missing[0]}', which {names[missing[0]]} lacks")
    return tensors


def _torch_file(path: Path) -> Any:
    stand_ins = _CONTAINERS + [
        (_Nothing, f"{module}.{name}") for module, names in _REPLACED.items() for name in names
    ]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # on pickle protocols: the error says enough
            with path.open("rb") as file:  # of a path, torch would judge the suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path} is not a weights-only file{f' (it needs {needs[1]})' if needs else ''}: save"
            " model.state_dict() instead (other pickles can run code and are not opened)"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # reading bytes that are no pickle may raise anything
        if "TorchScript" in str(error):
            raise InputError(
                f"{path} is a TorchScript archive, which holds code: save model.state_dict()"
            ) from error
        raise InputError(f"{path} is damaged or not a torch file: {first_line(error)}") from error
