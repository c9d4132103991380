"""Data by name or by reference."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ssgd_analysis import batch as batching
from ssgd_analysis import references
from ssgd_analysis.batch import Batch, Count
from ssgd_analysis.data.batched import BatchedSplit
from ssgd_analysis.data.dataset import Dataset, Split
from ssgd_analysis.data.digits import digits
from ssgd_analysis.data.images import IMAGES
from ssgd_analysis.data.loader import split_of_batches
from ssgd_analysis.data.stand_in import standin_cifar10, standin_cifar100
from ssgd_analysis.data.synthetic import mnist1d, two_moons
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.files import cache_folder

CHUNK = 256  # examples of a data set that are read at once


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


def load_data(
    name: str, folder: Path | None = None, *, stream: bool = False, count: Count | None = None
) -> Dataset:
    """A data set by registered name or reference, on the CPU.

    Args:
        name: a name of :data:`DATA`, or a reference to a callable that returns ``(train, test)``,
            a dictionary with ``train`` and, if there are such, ``test`` and ``val``, or a
            ``DataLoader`` of training examples alone. Each is one of

            - a pair of tensors; for a loss of (model, batch) also tensors in dictionaries,
              dataclasses or tuples of any length, stacked already;
            - a ``torch.utils.data.Dataset`` or list of examples of such a structure, or an
              ``IterableDataset`` of them;
            - a ``DataLoader`` or any other iterable of batches of such a structure.
        folder: where files are looked for; default :func:`default_folder`.
        stream: leave examples of data sets and loaders where they are, and read them at each pass.
        count: the examples of a batch that a loader gives; default their tensors' length.

    Raises:
        InputError: an unknown name, a reference that fails, data that is empty or unfit, or that
            is larger than the memory.
    """
    if name in DATA:
        return DATA[name].make(folder or default_folder())
    if not references.is_reference(name):
        raise unknown("data set", name, DATA)
    given = _parts(name, references.call("data", name, references.resolve("data", name)))
    parts: dict[str, Any] = {
        part: _split(name, part, each, stream, count) for part, each in given.items()
    }
    loaded = Dataset(name, **parts)
    _check_shapes(loaded)
    return loaded


def _parts(name: str, made: Any) -> dict[str, Any]:
    """What a reference returned, by the name of the split."""
    if isinstance(made, Mapping) and "train" in made and made.keys() <= {"train", "test", "val"}:
        return dict(made)
    if isinstance(made, DataLoader):
        return {"train": made}
    try:
        train, test = made
    except (TypeError, ValueError):
        raise InputError(
            f"data '{name}' should return (train, test), or a dictionary with train, test and val"
        ) from None
    return {"train": train, "test": test}


def _split(
    name: str, part: str, given: Any, stream: bool, count: Count | None
) -> Split | BatchedSplit:
    """A split from stacked tensors, a data set of examples, or a loader of batches."""
    named = f"{name}: {part}"
    try:
        if _is_pair(given):
            inputs, targets = (torch.as_tensor(side) for side in given)
        elif isinstance(given, tuple | Mapping) or is_dataclass(given):
            return Split(_tensors(given))
        elif isinstance(given, IterableDataset) or (stream and _is_map_style(given)):
            return split_of_batches(named, _Chunks(given), _stacked_pairs, stream=stream)
        elif _is_map_style(given):
            if len(given) == 0:
                raise InputError("the data is empty")
            items = [given[index] for index in range(len(given))]
            if not all(map(_is_pair, items)):
                return Split(_stacked([_tensors(item) for item in items]))
            inputs, targets = _columns(items)
        elif isinstance(given, Iterable):
            prepared = partial(_batch, source=type(given).__name__)
            return split_of_batches(named, given, prepared, stream=stream, count=count)
        else:
            raise InputError(
                f"a {type(given).__name__} is neither tensors, nor a data set, nor an iterable of"
                " batches"
            )
        return Split(_inputs(inputs.detach()), _targets(targets.detach()))
    except InputError as error:
        raise InputError(f"data '{name}': {part}: {error}") from error
    except Exception as error:  # whatever a user's data set raises
        raise InputError(f"data '{name}': {part}: {type(error).__name__}: {error}") from error


def _is_map_style(given: Any) -> bool:
    """Whether it gives single examples by their index."""
    return hasattr(given, "__getitem__") and hasattr(given, "__len__")


class _Chunks:
    """Examples of a data set, a few hundred at once as a list; a data set that is read again."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __iter__(self) -> Iterator[list[Any]]:
        given, known = self.given, _is_map_style(self.given)
        examples = (given[index] for index in range(len(given))) if known else iter(given)
        while chunk := list(islice(examples, CHUNK)):
            yield chunk


def _columns(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Stacked inputs and targets of pairs."""
    inputs = torch.stack([torch.as_tensor(pair[0]) for pair in items])
    return inputs, torch.stack([torch.as_tensor(pair[1]) for pair in items])


def _stacked_pairs(items: list[Any]) -> Batch:
    """A list of examples as a batch."""
    if all(map(_is_pair, items)):
        return _batch(_columns(items))
    return _stacked([_tensors(item) for item in items])


def _batch(given: Any, source: str = "data set") -> Batch:
    """A loader's batch with the package's types; what is neither tensor nor array stays.

    Raises:
        InputError: it is no batch but a number or a text.
    """
    if isinstance(given, int | float | str | bytes | None):
        raise InputError(f"a {source} gives {type(given).__name__}, not batches of tensors")
    if _is_pair(given):
        inputs, targets = (torch.as_tensor(side).detach() for side in given)
        return _inputs(inputs), _targets(targets)
    return _tensors(given, arrays_only=True)


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


def _tensors(given: Any, *, arrays_only: bool = False) -> Any:
    """The same structure of tensors, lists as tuples; their dtypes stay.

    Args:
        given: tensors, arrays, numbers and lists of numbers in a structure.
        arrays_only: leave what is neither a tensor nor an array as it is.
    """
    if isinstance(given, list) and _is_structure(given):
        given = tuple(given)
    if batching.is_structure(given) and not isinstance(given, list):
        return batching.rebuilt(given, lambda part: _tensors(part, arrays_only=arrays_only))
    if arrays_only and not isinstance(given, Tensor | np.ndarray):
        return given
    return torch.as_tensor(given).detach()


def _stacked(items: list[Any]) -> Any:
    """Examples of one structure as that structure of stacked tensors."""
    rows = [batching.tensors(item) for item in items]
    if any(batching.structure(item) != batching.structure(items[0]) for item in items):
        raise InputError("not all examples have the same parts")
    return batching.mapped(items[0], [torch.stack(column) for column in zip(*rows, strict=True)])


def _inputs(inputs: Tensor) -> Tensor:
    """Floats stay; bytes are pixels; other integers are tokens."""
    if inputs.is_floating_point():
        return inputs
    return inputs.float() if inputs.dtype in (torch.uint8, torch.bool) else inputs.long()


def _targets(targets: Tensor) -> Tensor:
    return targets if targets.is_floating_point() else targets.long()


def _check_shapes(data: Dataset) -> None:
    """The examples of both splits have one shape; batches that cannot be joined have none."""
    if data.test is None or not (data.train.alike and data.test.alike):
        return
    train, test = (
        [tuple(tensor.shape[1:]) for tensor in batching.tensors(split.inputs)]
        for split in (data.train, data.test)
    )
    for of_test, of_train in zip_longest(test, train):
        if of_test != of_train:
            raise InputError(
                f"data '{data.name}': test inputs have shape {of_test}, train inputs {of_train}"
            )
