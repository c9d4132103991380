"""Data by name or by reference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis import references
from ssgd_analysis.data.dataset import Dataset, Split
from ssgd_analysis.data.digits import digits
from ssgd_analysis.data.images import IMAGES
from ssgd_analysis.data.stand_in import standin_cifar10, standin_cifar100
from ssgd_analysis.data.synthetic import mnist1d, two_moons
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.files import cache_folder


@dataclass(frozen=True)
class DataEntry:
    """One line of the table: a function that makes a data set, given the folder for files."""

    make: Callable[[Path], Dataset]
    summary: str


DATA = {
    "digits": DataEntry(digits, "1,797 real handwritten digits, 8×8, shipped with scikit-learn"),
    "mnist1d": DataEntry(mnist1d, "MNIST-1D: ten classes, 40 values, generated"),
    "two_moons": DataEntry(two_moons, "two interleaved half circles in the plane"),
    "standin-cifar10": DataEntry(standin_cifar10, "generated images for CIFAR-10, to try a file"),
    "standin-cifar100": DataEntry(
        standin_cifar100, "generated images for CIFAR-100, to try a file"
    ),
} | {
    entry.name: DataEntry(entry, f"{entry.source}, read or downloaded by torchvision")
    for entry in IMAGES
}


def default_folder() -> Path:
    """The folder for downloaded data unless ``--data-dir`` says otherwise."""
    return cache_folder() / "data"


def load_data(name: str, folder: Path | None = None) -> Dataset:
    """A data set by registered name or reference, on the CPU.

    Args:
        name: a name of :data:`DATA`, or a reference to a callable that returns
            ``(train, test)``, each a ``torch.utils.data.Dataset`` of ``(input, target)`` or a
            pair of tensors. For a loss of (model, batch) also dictionaries, tuples of any length
            or single tensors: as items of a data set, or of tensors that are stacked already.
        folder: where files are looked for; default :func:`default_folder`.

    Raises:
        InputError: an unknown name, a reference that fails, or data that is empty or unfit.
    """
    if name in DATA:
        return DATA[name].make(folder or default_folder())
    if not references.is_reference(name):
        raise unknown("data set", name, DATA)
    made = references.call("data", name, references.resolve("data", name))
    try:
        train, test = made
    except (TypeError, ValueError):
        raise InputError(f"data '{name}' should return (train, test)") from None
    loaded = Dataset(name, _split(name, "train", train), _split(name, "test", test))
    _check_shapes(loaded)
    return loaded


def _split(name: str, part: str, given: Any) -> Split:
    """A split from stacked tensors or a map-style data set."""
    try:
        if _is_pair(given):
            inputs, targets = (torch.as_tensor(side) for side in given)
        elif isinstance(given, tuple | Mapping):
            return Split(_tensors(given))
        elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
            if len(given) == 0:
                raise InputError("the data is empty")
            items = [given[index] for index in range(len(given))]
            if not all(map(_is_pair, items)):
                return Split(_stacked([_tensors(item) for item in items]))
            inputs = torch.stack([torch.as_tensor(pair[0]) for pair in items])
            targets = torch.stack([torch.as_tensor(pair[1]) for pair in items])
        else:
            raise InputError(
                f"a {type(given).__name__} is neither a pair of tensors nor a data set"
                " with a length"
            )
        return Split(_inputs(inputs.detach()), _targets(targets.detach()))
    except InputError as error:
        raise InputError(f"data '{name}': {part}: {error}") from error
    except Exception as error:  # whatever a user's data set raises
        raise InputError(f"data '{name}': {part}: {type(error).__name__}: {error}") from error


def _is_pair(given: Any) -> bool:
    """Whether it is (inputs, targets), each a tensor or what becomes one.

    Anything else (dictionaries, tuples of another length, single tensors) is left to a loss of
    (model, batch).
    """
    return (
        isinstance(given, tuple | list) and len(given) == 2 and not any(map(_is_structure, given))
    )


def _is_structure(given: Any) -> bool:
    """Whether it holds tensors, rather than being one or a list of numbers."""
    if isinstance(given, tuple | list):
        return any(part.ndim if isinstance(part, Tensor) else _is_structure(part) for part in given)
    return isinstance(given, Mapping)


def _tensors(given: Any) -> Any:
    """The same structure of tensors; their dtypes stay. Mappings of any kind become dicts."""
    if isinstance(given, Mapping):
        return {key: _tensors(value) for key, value in given.items()}
    if isinstance(given, tuple) or (isinstance(given, list) and _is_structure(given)):
        parts = [_tensors(part) for part in given]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    return torch.as_tensor(given).detach()


def _stacked(items: list[Any]) -> Any:
    """Examples of one structure as that structure of stacked tensors."""
    rows = [batching.tensors(item) for item in items]
    if any(_keys(item) != _keys(items[0]) for item in items):
        raise InputError("not all examples have the same parts")
    return batching.mapped(items[0], [torch.stack(column) for column in zip(*rows, strict=True)])


def _keys(item: Any) -> Any:
    """What two examples of one structure have in common."""
    if isinstance(item, Mapping):
        return {key: _keys(value) for key, value in item.items()}
    return [_keys(part) for part in item] if isinstance(item, tuple) else None


def _inputs(inputs: Tensor) -> Tensor:
    """Floats stay; bytes are pixels; other integers are tokens."""
    if inputs.is_floating_point():
        return inputs
    return inputs.float() if inputs.dtype in (torch.uint8, torch.bool) else inputs.long()


def _targets(targets: Tensor) -> Tensor:
    return targets if targets.is_floating_point() else targets.long()


def _check_shapes(data: Dataset) -> None:
    train, test = (
        [tuple(tensor.shape[1:]) for tensor in batching.tensors(split.inputs)]
        for split in (data.train, data.test)
    )
    for of_test, of_train in zip_longest(test, train):
        if of_test != of_train:
            raise InputError(
                f"data '{data.name}': test inputs have shape {of_test}, train inputs {of_train}"
            )
