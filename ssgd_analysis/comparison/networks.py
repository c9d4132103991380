"""Whether weights belong to the same network: names, shapes, and BatchNorm layers that act."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from ssgd_analysis.errors import InputError, first_line

MEAN = "running_mean"
KEYS = (MEAN, "running_var", "weight", "bias")
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Network:
    """The network that some weights belong to.

    Args:
        shapes: of every tensor, by name.
        norms: the active BatchNorm layers, those that are not the identity.
    """

    shapes: dict[str, tuple[int, ...]]
    norms: frozenset[str]


def network_of(path: Path) -> Network:
    """The network of a safetensors file; only BatchNorm's tensors are read.

    Raises:
        InputError: the file is not there, or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            norms = [name.removesuffix(MEAN) for name in names if name.endswith(MEAN)]
            acting = [
                norm.rstrip(".")
                for norm in norms
                if _acts({key: file.get_tensor(norm + key) for key in KEYS if norm + key in shapes})
            ]
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {first_line(error)}") from error
    return Network(shapes, frozenset(acting))


def _acts(layer: dict[str, Tensor]) -> bool:
    """Not the identity in evaluation mode, to four digits: a usual ε is below that."""
    one, none = torch.ones(()), torch.zeros(())
    scale = layer.get("weight", one).float() * layer.get("running_var", one).float().rsqrt()
    shift = layer.get("bias", none).float() - layer[MEAN].float() * scale
    return not bool(((scale - 1).abs().max() < 1e-4) & (shift.abs().max() < 1e-4))


def network_differences(group: Sequence[Path], baseline: Sequence[Path]) -> str:
    """In what the networks of two groups differ, in words; empty where all are the same.

    Args:
        group: weight files; one that can't be read is skipped here and refused when measured.
        baseline: the same.
    """
    every: list[Network] = []
    for path in (*baseline, *group):
        with contextlib.suppress(InputError):
            every.append(network_of(path))
    for one, other in ((one, every[0]) for one in every if one != every[0]):
        own_norms, other_norms = sorted(one.norms - other.norms), sorted(other.norms - one.norms)
        if bool(one.norms) != bool(other.norms):
            names = _first_names(own_norms or other_norms)
            return f"BatchNorm layers ({names}), which only one side has"
        if own_norms or other_norms:
            names = _first_names(own_norms + other_norms)
            return f"active BatchNorm layers ({names}), which are folded on one side"
        unshared = sorted(one.shapes.keys() ^ other.shapes.keys())
        if unshared:
            return f"the names of their tensors ({_first_names(unshared)})"
        unequal = [name for name in one.shapes if one.shapes[name] != other.shapes[name]]
        return f"the shapes of their tensors ({_first_names(unequal)})"
    return ""


def _first_names(names: Sequence[str]) -> str:
    rest = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
