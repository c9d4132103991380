"""Connecting two networks in memory: every path that was asked for, stored as it is found."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ssgd_analysis.batch import tensors
from ssgd_analysis.connections.connection import (
    OTHER_EXAMPLES,
    PATHS,
    Connection,
    find_connection,
    same_examples,
)
from ssgd_analysis.connections.curve import Minibatches
from ssgd_analysis.connections.path import line, put
from ssgd_analysis.connections.record import ConnectionRecord
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.files import jsonable, make_folder
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.problem.described import described
from ssgd_analysis.problem.recalibration import recalibration
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.settings.connection import ConnectionSettings
from ssgd_analysis.store import KeyedStore
from ssgd_analysis.weights import borrowed_state
from ssgd_analysis.weights.tensor_file import save_tensors

DEFAULT_PATHS = ("line", "matched", "bezier")
Arrays = dict[str, np.ndarray]


def connect(
    first: Problem,
    second: Problem | nn.Module,
    settings: ConnectionSettings | None = None,
    *,
    paths: Sequence[str] = DEFAULT_PATHS,
    test: Problem | None = None,
    calibration: Sequence[Batch] = (),
    minibatches: Minibatches | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    save_weights: bool = False,
    origin: Mapping[str, Any] | None = None,
    code: str = "",
    progress: Progress = SILENT,
) -> ConnectionRecord:
    """Connect two networks of one architecture, and measure the barrier on every path.

    Both models come back as they were, bit for bit.

    Args:
        first: one network, its loss and its training examples.
        second: the other network, or its problem (whose examples are then compared).
        settings: how paths are found and evaluated.
        paths: the kinds of paths, see :data:`ssgd_analysis.connections.PATHS`.
        test: the first network's problem on the test split, where paths are evaluated, too.
        calibration: batches for BatchNorm's statistics; default: those of ``first``.
        minibatches: see :func:`train_curve`; default: the batches of ``first`` in a new order.
        folder: every finished path is stored there, so that a killed call can be resumed.
        resume: use the paths of the folder that belong to the same weights, data and settings.
        save_weights: also store the permuted network and the bends of curves as weight files.
        origin: where the networks come from, for the document: ``checkpoints``, ``samples``,
            ``batch_size`` (of minibatches), ``notes``, ``command``.
        code: text that changes with the code of model and loss: paths of other code do not count.
        progress: receives epochs and points.

    Raises:
        InputError: two architectures, an unknown path, or a damaged file in the folder.
        WorkError: a curve's training diverged, or the disk is full.

    Example:
        >>> import torch; from torch import nn
        >>> def net(seed):
        ...     torch.manual_seed(seed)
        ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x, y = torch.randn(32, 4), torch.arange(32) % 2
        >>> problem = Problem(net(0), nn.functional.cross_entropy, [(x, y)])
        >>> found = connect(problem, net(1), ConnectionSettings(points=5), paths=["line"])
        >>> [row["path"] for row in found.rows()]
        ['line']
    """
    settings, origin = settings or ConnectionSettings(), dict(origin or {})
    other = second.model if isinstance(second, Problem) else second
    distance = line(first.model, other).length()  # refuses two architectures
    splits = {"train": first} | ({"test": test} if test is not None else {})
    for problem in splits.values():
        problem.check()
    kinds = tuple(dict.fromkeys(paths))
    if strange := [kind for kind in kinds if kind not in PATHS]:
        raise unknown("path", strange[0], PATHS)
    document: dict[str, Any] = {
        **_document(splits, settings, origin),
        "distance": distance,
        "notes": [*origin.get("notes", ()), *_notes(first, second, splits)],
        "fingerprint": _fingerprint(
            splits, other, settings, calibration, f"{code} {origin.get('batch_size')}"
        ),
        "command": origin.get("command"),
        "out": None,
        "pictures": [],
    }
    folder = None if folder is None else Path(folder)
    if save_weights:
        if folder is None:
            raise InputError("save_weights=True needs a folder to write to: give folder=")
        files = [file for kind in kinds for file in weight_files(folder, kind, settings.bends)]
        document["weights"] = [str(file) for file in files]
    stored = {}
    if resume and folder is not None:
        stored = _stored(folder, kinds, document, settings.bends)
        finished = _finished(folder, document, kinds) if len(stored) == len(kinds) else None
        if finished is not None:
            return finished
    store = None if folder is None else KeyedStore(make_folder(folder) / "paths")
    arrays: Arrays = {}
    found: dict[str, Connection] = {}
    for kind in kinds:
        if kind not in stored:
            found[kind] = made = find_connection(
                kind,
                splits,
                other,
                settings,
                calibration=calibration,
                minibatches=minibatches,
                progress=progress,
            )
            if save_weights and folder is not None:
                batches = (calibration or first.batches) if settings.bn == "recalibrate" else []
                _save_weights(made, folder, first, batches)
            stored[kind] = jsonable(made.record), _columns(made)
            if store is not None:
                store.write_arrays(kind, _key(document), *stored[kind])
        record, columns = stored[kind]
        document["paths"].append(record)
        arrays |= {n if n == "t" else f"{kind}_{n}": array for n, array in columns.items()}
    return ConnectionRecord(document, arrays, found)


def _document(
    splits: Mapping[str, Problem], settings: ConnectionSettings, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """What the document says before any path is found."""
    return {
        "checkpoints": list(origin.get("checkpoints", ("first", "second"))),
        "settings": {**dataclasses.asdict(settings), "batch_size": origin.get("batch_size")},
        "samples": origin.get("samples"),
        "n_samples": {split: problem.n_samples for split, problem in splits.items()},
        "paths": [],
    }


def _notes(first: Problem, second: Problem | nn.Module, splits: Mapping[str, Problem]) -> list[str]:
    """What the two problems do not share, and what was assumed of the first."""
    notes = []
    if isinstance(second, Problem) and not same_examples(first, second):
        notes.append(OTHER_EXAMPLES)
    return [*notes, *dict.fromkeys(n for problem in splits.values() for n in problem.notes)]


def _fingerprint(
    splits: Mapping[str, Problem],
    other: nn.Module,
    settings: ConnectionSettings,
    calibration: Sequence[Batch],
    more: str,
) -> str:
    """A hash of all that a path depends on."""
    first = splits["train"]
    end = Problem(other, first.loss, first.batches, count=first.count)
    parts = [problem.fingerprint() for problem in (*splits.values(), end)]
    parts += [json.dumps(described([tensors(batch) for batch in calibration]))]
    parts += [more, repr(dataclasses.asdict(settings))]
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()


def _key(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"fingerprint": document["fingerprint"]}


def _columns(connection: Connection) -> Arrays:
    """The arrays of a path by name."""
    arrays = {"t": connection.profiles["train"].t}
    for split, profile in connection.profiles.items():
        arrays |= {f"{split}_loss": profile.loss, f"{split}_accuracy": profile.accuracy}
    return arrays


def _stored(
    folder: Path, kinds: Sequence[str], document: Mapping[str, Any], bends: int
) -> dict[str, tuple[Any, Arrays]]:
    """Records and arrays of the paths that an earlier call finished, with weights if asked for."""
    store, found = KeyedStore(folder / "paths"), {}
    for kind in kinds:
        entry = store.read_arrays(kind, _key(document))
        files = weight_files(folder, kind, bends) if "weights" in document else []
        if entry is not None and all(file.is_file() for file in files):
            found[kind] = entry
    return found


def _finished(
    folder: Path, document: Mapping[str, Any], kinds: Sequence[str]
) -> ConnectionRecord | None:
    """The record of the same call, if it came to its end and its files are there."""
    try:
        found = ConnectionRecord.read(folder)
    except InputError:
        return None
    asked = ("fingerprint", "command", "weights")
    same = all(found.document.get(key) == document.get(key) for key in asked)
    return found if same and list(found.kinds) == list(kinds) else None


def weight_files(folder: Path, kind: str, bends: int) -> list[Path]:
    """Where a path's weights are stored.

    Args:
        folder: of the connection.
        kind: of the path.
        bends: of a chain.
    """
    count = {"line": 0, "matched": 1, "bezier": 1, "chain": bends}[kind]
    if kind == "matched":
        return [folder / "weights" / "matched.safetensors"]
    return [folder / "weights" / f"{kind}-{k}.safetensors" for k in range(1, count + 1)]


def _save_weights(
    connection: Connection, folder: Path, problem: Problem, calibration: Sequence[Batch]
) -> None:
    """The second network permuted, or each bend; with BatchNorm's statistics as measured."""
    path, kind = connection.path, connection.record["path"]
    points = [path.at(1.0)] if kind == "matched" else []
    for k, bend in enumerate(path.bends, start=1):
        points.append({**path.at(k / (len(path.bends) + 1)), **bend})
    make_folder(folder / "weights")
    for point, file in zip(points, weight_files(folder, kind, len(path.bends)), strict=True):
        with borrowed_state(path.model):
            put(path.model, point)
            if calibration and kind != "matched":
                recalibration(problem, calibration)()
            save_tensors(file, path.model.state_dict(), {"path": kind})
