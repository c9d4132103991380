"""A loss described by plain values, the same in every process, so that stored numbers know it."""

import functools
import hashlib
import types
from typing import Any

import torch
from torch import Tensor, nn

DEEPEST = 6  # levels that are described: what lies deeper counts by its type alone


def described(value: Any, depth: int = 0) -> Any:
    """What a callable computes, as far as Python shows it: its code and what it holds.

    Args:
        value: a function, module, partial, or anything that one of them holds.
        depth: of the value inside the first one.

    Returns:
        Plain values, equal for equal losses. An object that cannot be described counts by its
        type, so that different ones may be taken for the same.

    Example:
        >>> import torch.nn.functional as F
        >>> one, two = (functools.partial(F.cross_entropy, label_smoothing=a) for a in (0.1, 0.2))
        >>> described(one) == described(one) != described(two)
        True
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        return [str(value.dtype), list(value.shape), hashlib.blake2b(data).hexdigest()]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth > DEEPEST:
        return name
    inner = functools.partial(described, depth=depth + 1)
    if isinstance(value, tuple | list):
        return [inner(entry) for entry in value]
    if isinstance(value, dict):
        return [[str(key), inner(entry)] for key, entry in value.items()]
    if isinstance(value, functools.partial):
        return [inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, types.MethodType):
        return [inner(value.__func__), inner(value.__self__)]
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), list(value.co_names), inner(value.co_consts)]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        held = [inner(each) for each in (value.__code__, value.__defaults__, cells)]
        return [f"{value.__module__}.{value.__qualname__}", *held]
    if isinstance(value, nn.Module):
        public = {key: entry for key, entry in vars(value).items() if not key.startswith("_")}
        return [name, inner(public), inner(dict(value.state_dict()))]
    named = getattr(value, "__qualname__", None)  # classes, and functions that are not Python's
    return f"{value.__module__}.{named}" if named else [name, inner(getattr(value, "__dict__", {}))]
