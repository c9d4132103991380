"""A user's own model, data set or loss, named by reference.

A reference is ``package.module:attribute`` or ``path/to/file.py:attribute``.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ssgd_analysis.errors import InputError


def is_reference(name: str) -> bool:
    """Whether ``name`` has the form of a reference (as against a registered name)."""
    return ":" in name and not name.startswith("torchvision:")


def absolute(name: str) -> str:
    """The same reference, with the path of a file made absolute.

    A run folder must be readable from any working directory.
    """
    if not is_reference(name):
        return name
    place, _, attribute = name.rpartition(":")
    return f"{Path(place).resolve()}:{attribute}" if place.endswith(".py") else name


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """Import what a reference names.

    Args:
        kind: ``"model"``, ``"data"`` or ``"loss"``, for the error's wording.
        name: the reference.

    Returns:
        The callable it names.

    Raises:
        InputError: it does not import, has no such attribute or is not callable.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise InputError(
            f"{kind} reference '{name}' should be module:attribute or file.py:attribute"
        )
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's file may do anything when imported
        raise InputError(
            f"{kind} reference '{name}' does not import: {type(error).__name__}: {error}"
        ) from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InputError(f"{kind} reference '{name}': {place} has no attribute '{attribute}'")
        target = getattr(target, part)
    if not callable(target):
        raise InputError(f"{kind} reference '{name}' is a {type(target).__name__}, not a callable")
    return target


def call(kind: str, name: str, target: Callable[..., Any], **offered: Any) -> Any:
    """Call a user's factory with those of the offered keywords that it accepts.

    Raises:
        InputError: the call itself raises.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        accepted = {}
    else:
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        accepted = {key: value for key, value in offered.items() if takes_all or key in names}
    try:
        return target(**accepted)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{kind} '{name}' raised {type(error).__name__} when called: {error}"
        ) from error


def _load_module(name: str) -> ModuleType:
    # An installed command does not have the working directory on its path; users expect it.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    name = f"_ssgd_reference_{abs(hash(str(path)))}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:  # its sibling modules, as when it is run as a script
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
