"""The arrows of the design, proved with plain ``ast``: nothing here imports the package."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "ssgd_analysis"
MAX_LINES = 320

# Room or single file at the top of the package -> the other rooms that it may import.
# A new room must get a line here: the design is a decision, not an accident.
FOUNDATION = {"errors", "files", "progress", "seeds", "devices", "settings", "references"} | {
    "metric_names"
}
MEASURING = FOUNDATION | {"weights", "batch", "streams", "problem", "random_state"}
RECORDING = MEASURING | {"records", "store", "plots", "pictures"}
ARROWS = {
    "__init__": {
        "runs",
        "training",
        "methods",
        "curvature",
        "flatness",
        "sharpness",
        "problem",
        "errors",
    },
    "errors": set(),
    "settings": {"errors"},
    "records": {"errors"},
    "devices": {"errors"},
    "seeds": {"errors"},
    "random_state": {"seeds"},
    "files": {"errors"},
    "store": {"errors", "files"},
    "progress": set(),
    "metric_names": set(),
    "ranks": set(),
    "parallel": set(),
    "references": {"errors"},
    "code_hash": {"errors", "references"},
    "batch": {"errors"},
    "streams": {"errors", "batch", "random_state"},
    "weights": {"errors", "files", "batch"},
    "problem": {"errors", "devices", "weights", "batch", "streams"},
    "data": FOUNDATION | {"batch", "streams"},
    "models": FOUNDATION,
    "optimizers": FOUNDATION | {"weights"},
    "methods": MEASURING | {"ranks"},
    "runs": MEASURING | {"data", "models", "optimizers", "methods"},
    "training": MEASURING
    | {"ranks", "parallel", "data", "models", "optimizers", "methods", "runs", "curvature"},
    "curvature": MEASURING | {"store"},
    "symmetries": MEASURING,
    "flatness": MEASURING | {"curvature", "symmetries"},
    "sharpness": RECORDING | {"curvature", "symmetries", "flatness", "report"},
    "landscapes": RECORDING | {"curvature", "ranks"},
    "connections": RECORDING | {"curvature", "symmetries", "report"},
    "comparison": RECORDING | {"code_hash", "runs", "methods", "flatness", "report"},
    "plots": {"errors", "files"},
    "pictures": FOUNDATION | {"plots"},
    "report": FOUNDATION | {"records", "plots", "pictures"},
    "studies": FOUNDATION
    | {"training", "runs", "comparison", "flatness", "curvature", "landscapes", "methods"}
    | {"records", "plots", "pictures", "report", "random_state", "sharpness", "parallel"},
}


def _sources() -> dict[str, Path]:
    """Module name to file; the folder ``cli`` installs as ``ssgd_analysis.cli``."""
    found = {}
    for folder, prefix in ((ROOT / PACKAGE, PACKAGE), (ROOT / "cli", f"{PACKAGE}.cli")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([prefix, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


SOURCES = _sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
LIBRARY = sorted(name for name in SOURCES if not name.startswith(f"{PACKAGE}.cli"))


def _base(module: str, node: ast.ImportFrom) -> str:
    """The absolute module of a ``from … import``, relative ones resolved."""
    if not node.level:
        return node.module or ""
    is_package = SOURCES[module].name == "__init__.py"
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def _named(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _base(module, node)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield inner if inner in SOURCES else base


def _imports(module: str) -> set[str]:
    """Every module that one names in an import: at the top, in a function, for types alone."""
    return {name for node in ast.walk(TREES[module]) for name in _named(module, node)}


IMPORTS = {name: _imports(name) for name in SOURCES}


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _rooms_used(room: str) -> set[str]:
    used = {
        _room(target)
        for module in SOURCES
        if _room(module) == room
        for target in IMPORTS[module]
        if target.split(".")[0] == PACKAGE
    }
    return used - {room}


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a directed graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := visit(target, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_the_cycle_finder_finds_cycles():
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_sources_are_found():
    assert len(SOURCES) > 50
    assert f"{PACKAGE}.cli.main" in SOURCES
    # a sample edge of each kind: sibling, other room, late import
    assert f"{PACKAGE}.weights.noise" in IMPORTS[f"{PACKAGE}.weights"]
    assert f"{PACKAGE}.weights" in IMPORTS[f"{PACKAGE}.problem.batch_loss"]
    assert f"{PACKAGE}.training" in IMPORTS[f"{PACKAGE}.cli.train"]


def test_no_import_cycle_between_modules():
    own = {name: {t for t in targets if t in SOURCES} for name, targets in IMPORTS.items()}
    assert _cycle(own) == []


def test_no_import_cycle_between_rooms():
    rooms = {_room(name) for name in SOURCES}
    assert _cycle({room: _rooms_used(room) for room in rooms}) == []


def _part(module: str) -> str:
    """The room within a room that a module stands in, if it stands in one."""
    parent = module.rpartition(".")[0]
    return parent if parent.count(".") > 1 else module


def test_no_import_cycle_between_the_parts_of_a_room():
    """Such as ``operators``, ``products``, ``eigen`` and ``estimates`` of ``curvature``."""
    parts: dict[str, set[str]] = {}
    for module, targets in IMPORTS.items():
        own = {_part(target) for target in targets if target in SOURCES}
        parts.setdefault(_part(module), set()).update(own - {_part(module)})
    assert f"{PACKAGE}.curvature.products" in parts[f"{PACKAGE}.curvature.operators"]
    assert _cycle(parts) == []


def test_rooms_import_only_what_the_design_allows():
    rooms = {_room(name) for name in SOURCES} - {"cli"}
    assert rooms == set(ARROWS), "a room is new or gone: decide what it may import"
    offenders = {room: sorted(_rooms_used(room) - ARROWS[room]) for room in rooms}
    assert {room: targets for room, targets in offenders.items() if targets} == {}


FORBIDDEN = {
    "curvature": {"training", "methods", "runs"},
    "flatness": {"plots", "training", "methods", "runs"},
    "sharpness": {"training", "methods", "runs"},
    "landscapes": {"training", "methods", "runs"},
    "connections": {"training", "methods", "runs"},
    "runs": {"training", "curvature"},
    "data": {"models", "methods", "training"},
    "plots": {
        "training",
        "methods",
        "curvature",
        "flatness",
        "landscapes",
        "comparison",
        "problem",
    },
}


def _reached(room: str) -> set[str]:
    """The rooms that one imports, through any number of steps."""
    reached, waiting = set(), [room]
    while waiting:
        new = _rooms_used(waiting.pop()) - reached
        reached |= new
        waiting += new
    return reached


def test_forbidden_arrows_hold_also_indirectly():
    offenders = {room: sorted(_reached(room) & targets) for room, targets in FORBIDDEN.items()}
    assert {room: targets for room, targets in offenders.items() if targets} == {}


def test_the_library_does_not_import_the_command_line():
    def typed(target: str) -> bool:
        return target.startswith(f"{PACKAGE}.cli") or target.split(".")[0] in ("cli", "click")

    found = {module: [t for t in IMPORTS[module] if typed(t)] for module in LIBRARY}
    assert {module: targets for module, targets in found.items() if targets} == {}


def _calls(module: str, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def _places(modules: Iterable[str], *names: str) -> list[str]:
    return [f"{m}:{call.lineno}" for m in modules for call in _calls(m, *names)]


def test_the_library_does_not_print():
    assert _places(LIBRARY, "print", "sys.stdout.write") == []


def test_no_pickle_is_written_or_run():
    unsafe = ("pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "torch.save")
    assert _places(SOURCES, *unsafe, "joblib.load", "joblib.dump") == []

    def keyword(call: ast.Call, name: str) -> str | None:
        return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)

    for module in SOURCES:
        for call in _calls(module, "torch.load"):
            assert keyword(call, "weights_only") == "True", f"{module}:{call.lineno}"
        for call in _calls(module, "np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") in (None, "False"), f"{module}:{call.lineno}"


def test_files_stay_small():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCES.values()}
    assert {str(p): n for p, n in lengths.items() if n > MAX_LINES} == {}, "split by idea"


def _undocumented(body: list[ast.stmt], place: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield f"{place}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node.body, f"{place}.{node.name}")


def test_every_public_name_has_a_docstring():
    bare = [m for m, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert bare == [], "the module itself"
    assert [name for m, tree in TREES.items() for name in _undocumented(tree.body, m)] == []


def test_the_command_line_starts_without_torch():
    """``--help`` must answer at once; torch alone takes more than a second."""
    heavy = ("torch", "numpy", "scipy", "matplotlib", "sklearn", "torchvision", "plotly")
    script = (
        "import sys, ssgd_analysis.cli.main\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_training_on_digits_imports_nothing_slow_that_it_does_not_need(tmp_path):
    """Every worker of a study pays for what it imports."""
    heavy = ("torchvision", "matplotlib", "plotly", "mnist1d")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import ssgd_analysis.studies\n"
        "from ssgd_analysis import TrainConfig, train\n"
        "config = TrainConfig(method='s-sgd', data='digits', model='mlp', epochs=1)\n"
        "train(config, Path('run'))\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"
