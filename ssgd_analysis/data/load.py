"""Data by name or by reference."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import references
from ssgd_analysis.data.dataset import Dataset, Split
from ssgd_analysis.data.digits import digits
from ssgd_analysis.data.images import IMAGES
from ssgd_analysis.data.synthetic import mnist1d, two_moons
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.files import cache_folder


@dataclass(frozen=True)
class DataEntry:
    """One line of the table: how to make a data set, given the folder for files."""

    make: Callable[[Path], Dataset]
    summary: str


DATA = {
    "digits": DataEntry(digits, "1,797 real handwritten digits, 8×8, shipped with scikit-learn"),
    "mnist1d": DataEntry(mnist1d, "MNIST-1D: ten classes, 40 values, generated"),
    "two_moons": DataEntry(two_moons, "two interleaved half circles in the plane"),
} | {
    entry.name: DataEntry(entry, f"{entry.source.__name__}, read or downloaded by torchvision")
    for entry in IMAGES
}


def default_folder() -> Path:
    """Where downloaded data is kept unless ``--data-dir`` says otherwise."""
    return cache_folder() / "data"


def load_data(name: str, folder: Path | None = None) -> Dataset:
    """A data set by registered name or reference, on the CPU.

    Args:
        name: a name of :data:`DATA`, or a reference to a callable that returns
            ``(train, test)``, each a ``torch.utils.data.Dataset`` of ``(input, target)`` or a
            pair of tensors.
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
    """A split from a pair of tensors or a map-style data set."""
    try:
        if isinstance(given, tuple | list) and len(given) == 2:
            inputs, targets = (torch.as_tensor(side) for side in given)
        elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
            if len(given) == 0:
                raise InputError("the data is empty")
            pairs = [given[index] for index in range(len(given))]
            inputs = torch.stack([torch.as_tensor(pair[0]) for pair in pairs])
            targets = torch.stack([torch.as_tensor(pair[1]) for pair in pairs])
        else:
            raise InputError(
                f"a {type(given).__name__} is neither a pair of tensors nor a data set"
                " with a length"
            )
        return Split(_inputs(inputs.detach()), _targets(targets.detach()))
    except InputError as error:
        raise InputError(f"data '{name}': {part}: {error}") from error
    except Exception as error:  # whatever a stranger's data set raises
        raise InputError(f"data '{name}': {part}: {type(error).__name__}: {error}") from error


def _inputs(inputs: Tensor) -> Tensor:
    """Floats as they are; bytes are pixels; other integers are tokens."""
    if inputs.is_floating_point():
        return inputs
    return inputs.float() if inputs.dtype in (torch.uint8, torch.bool) else inputs.long()


def _targets(targets: Tensor) -> Tensor:
    return targets if targets.is_floating_point() else targets.long()


def _check_shapes(data: Dataset) -> None:
    for split in (data.train, data.test):
        if split.inputs.shape[1:] != data.train.inputs.shape[1:]:
            raise InputError(
                f"data '{data.name}': test inputs have shape {tuple(split.inputs.shape[1:])},"
                f" train inputs {tuple(data.train.inputs.shape[1:])}"
            )
