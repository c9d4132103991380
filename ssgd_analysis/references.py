"""A user's own model, data set or loss, named by reference.

A reference is ``package.module:attribute`` or ``path/to/file.py:attribute``. A run keeps it as
:func:`absolute` gives it: with the file's whole path, or, for a module of a package that is not
installed, as ``/folder/of/the/package/package.module:attribute``.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ssgd_analysis.errors import InputError

HF = "hf:"  # then a folder with a model's config.json
LIBRARIES = ("torchvision:", "timm:", HF)  # then the name of a model there


def is_reference(name: str) -> bool:
    """Whether ``name`` has the form of a reference (as against a registered name).

    A file without an attribute counts too: :func:`resolve` reports what is missing.
    """
    return not name.startswith(LIBRARIES) and (":" in name or name.endswith(".py"))


def absolute(name: str) -> str:
    """The same reference, as it is found from any working directory.

    A run folder must be readable from everywhere, so what is not installed gets its path.
    """
    if name.startswith(HF):
        return f"{HF}{Path(name.removeprefix(HF)).resolve()}"
    source, _, attribute = name.rpartition(":")
    if not source or not is_reference(name):
        return name
    if source.endswith(".py"):
        return f"{Path(source).resolve()}:{attribute}"
    folder, slash, module = source.rpartition("/")
    if slash:
        return f"{Path(folder or slash).resolve() / module}:{attribute}"
    found = _not_installed(module)
    if found is None:
        return name
    file = found / f"{module}.py"
    return f"{file if file.is_file() else found / module}:{attribute}"


def _not_installed(module: str) -> Path | None:
    """The folder from which a module is imported, unless any Python would find it."""
    _add_working_directory()
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):  # the error comes when it is resolved
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:  # a package
        folder = Path(next(iter(spec.submodule_search_locations))).resolve().parent
    elif spec.has_location and spec.origin:
        folder = Path(spec.origin).resolve().parent
    else:
        return None
    paths = sysconfig.get_paths()
    installed = [Path(paths[k]).resolve() for k in ("stdlib", "platstdlib", "purelib", "platlib")]
    return None if any(folder.is_relative_to(path) for path in installed) else folder


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
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise InputError(
            f"{kind} reference '{name}' should be module:attribute or path.py:attribute"
        )
    try:
        module = _load_file(Path(source)) if source.endswith(".py") else _load_module(source)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a user's file may do anything when imported
        raise InputError(
            f"{kind} reference '{name}' does not import: {type(error).__name__}: {error}"
        ) from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InputError(f"{kind} reference '{name}': {source} has no attribute '{attribute}'")
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


def _add_working_directory() -> None:
    """An installed command does not have it on its path; users expect it."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _load_module(source: str) -> ModuleType:
    """Import ``package.module`` or ``/folder/package.module``."""
    folder, slash, name = source.rpartition("/")
    if not slash:
        _add_working_directory()
        return importlib.import_module(name)
    root = Path(folder or slash).resolve()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = importlib.import_module(name)
    origins = [module.__file__, *getattr(module, "__path__", [])]
    if not any(source and Path(source).resolve().is_relative_to(root) for source in origins):
        raise InputError(
            f"the module '{name}' in {root} is hidden by {origins[0]}, which has the same name:"
            " rename one of them"
        )
    return module


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    # the same name in every process: plans and pickles are found again by it
    name = f"_ssgd_reference_{hashlib.blake2b(str(path).encode(), digest_size=12).hexdigest()}"
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
