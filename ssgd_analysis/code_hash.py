"""The code behind a reference, as a hash: a measurement holds only for that code."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ssgd_analysis.errors import InputError
from ssgd_analysis.references import HF, is_reference


def code_hash(name: str) -> str:
    """A registered name itself; of a reference a hash of its source file, of ``hf:`` its config.

    A user's file counts together with all that it imports from beside it or from its own
    package. Of an installed module only the file itself counts.

    Args:
        name: of a model, data set or loss, as a run's config holds it.

    Raises:
        InputError: the source is not there.

    Example:
        >>> code_hash("digits")
        'digits'
        >>> code_hash("math:fsum") == code_hash("math:fsum")
        True
    """
    origin, _, _ = name.rpartition(":")
    if name.startswith(HF):
        sources = _with_imports(Path(name.removeprefix(HF)) / "config.json")
    elif not origin or not is_reference(name):
        return name
    elif origin.endswith(".py"):
        sources = _with_imports(Path(origin))
    elif "/" in origin:
        folder, _, module = origin.rpartition("/")
        sources = _with_imports(_source(Path(folder), module))
    else:
        sources = _installed(origin)
    digest = hashlib.blake2b(digest_size=8)
    for path in sources:
        digest.update(path.read_bytes())
    return f"{name} {digest.hexdigest()}"


def _source(folder: Path, module: str) -> Path:
    """The file of a module below a folder, which need not be there."""
    stem = folder.joinpath(*module.split("."))
    return stem / "__init__.py" if stem.is_dir() else stem.with_name(f"{stem.name}.py")


def _installed(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # importing a user's package may raise anything
        raise InputError(f"{module} does not import: {type(error).__name__}: {error}") from error
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    return [origin] if origin is not None and origin.is_file() else []  # built in: no file


def _with_imports(source: Path) -> list[Path]:
    if not source.is_file():
        raise InputError(f"there is no file {source}")
    found, waiting = set(), [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += _imported(path)
    return sorted(found)


def _imported(path: Path) -> Iterator[Path]:
    """Where the imports of a file would lie in its own folder or package."""
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # the error comes when it is imported
        return
    for node in nodes:
        folders, names = {path.parent, root}, []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            names = [base.rstrip("."), *(base + alias.name for alias in node.names)]
            if node.level:
                folders = set(path.parents[node.level - 1 : node.level])
        yield from (_source(folder, name) for folder in folders for name in names)
