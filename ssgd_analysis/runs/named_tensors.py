"""The tensors of nested dictionaries by name, and how errors write such names."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssgd_analysis.errors import InputError

# Names that wrappers put between the parts of a name; files and models are compared without them.
_WRAPPERS = {"module", "_module", "_orig_mod", "_checkpoint_wrapped_module"}
_WRAPPERS |= {"_fsdp_wrapped_module"}
_DEPTH, _NODES, _SHOWN = 24, 1_000_000, 60


@dataclass(frozen=True)
class NamedTensor:
    """A tensor of a file.

    Args:
        place: the keys of the dictionary that holds it.
        raw: all its keys, with dots.
        tensor: itself.
    """

    place: tuple[str, ...]
    raw: str
    tensor: Tensor


def named_tensors(content: Any, source: str | Path) -> list[NamedTensor]:
    """All tensors in nested dicts and lists (which may contain themselves), in their order.

    Raises:
        InputError: there are too many entries, or two tensors of one name.
    """
    found = list(_walk(content, (), itertools.count(), source))
    seen: set[str] = set()
    for each in found:
        if each.raw in seen:
            raise InputError(f"{source} holds two tensors named {quoted(each.raw)}")
        seen.add(each.raw)
    return found


def without_wrappers(name: str) -> str:
    """A name without the parts that DataParallel, torch.compile and the like add.

    Example:
        >>> without_wrappers("module.encoder._orig_mod.weight")
        'encoder.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def quoted(name: str) -> str:
    """A name for an error of one line, whatever characters it has."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in name)
    return f"'{clean}'" if len(clean) <= _SHOWN else f"'{clean[:_SHOWN]}…'"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(quoted, every[:most])) + more


def keys_of(content: Any) -> str:
    """What a file holds at its top level."""
    if isinstance(content, Mapping):
        return f"its keys are {listed(map(str, content))}" if content else "it is empty"
    return f"it holds a {type(content).__name__}"


def _walk(
    value: Any, path: tuple[str, ...], nodes: Iterator[int], source: str | Path
) -> Iterator[NamedTensor]:
    if isinstance(value, Tensor):
        yield NamedTensor(path[:-1], ".".join(path), value)
        return
    if not isinstance(value, Mapping | list | tuple) or len(path) > _DEPTH:
        return
    items: Iterable[Any] = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, entry in items:
        if isinstance(entry, Tensor | Mapping | list | tuple):
            if next(nodes) > _NODES:
                raise InputError(f"{source} holds too many nested entries to look for weights in")
            yield from _walk(entry, (*path, str(key)), nodes, source)
