import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.files import (
    jsonable,
    make_folder,
    read_json,
    write_atomically,
    write_json,
    write_text,
)

NAN, INF = float("nan"), float("inf")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole or not there


def test_a_new_file(tmp_path):
    write_text(tmp_path / "a.txt", "λ = 3\n")
    assert (tmp_path / "a.txt").read_bytes() == "λ = 3\n".encode()
    assert _names(tmp_path) == ["a.txt"]


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a much longer old content")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert _names(tmp_path) == ["a.txt"]


class Broken(Exception):
    """Not an OSError: a bug of the writer."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), WorkError),
        (Broken(), Broken),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("older", [True, False])
def test_a_writer_that_fails_half_way_changes_nothing(tmp_path, error, raised, older):
    path = tmp_path / "a.bin"
    if older:
        path.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half of the n")
        raise error

    with pytest.raises(raised):
        write_atomically(path, write)
    assert _names(tmp_path) == (["a.bin"] if older else [])
    if older:
        assert path.read_bytes() == b"old"


def test_a_full_disk_is_a_failure_of_the_work_that_names_the_file(tmp_path):
    def write(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WorkError, match=r"a\.bin: No space left on device"):
        write_atomically(tmp_path / "a.bin", write)


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.npz"

    def write(temporary: Path) -> None:
        assert temporary.parent == tmp_path  # a rename is atomic within one file system only
        assert temporary.suffix == ".npz"  # numpy and matplotlib go by the suffix
        assert temporary != path
        temporary.write_bytes(b"whole")
        assert not path.exists()

    write_atomically(path, write)
    assert path.read_bytes() == b"whole"


def test_the_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), sync(fd))[1])
    monkeypatch.setattr(
        Path, "replace", lambda self, other: (order.append("rename"), replace(self, other))[1]
    )
    write_text(tmp_path / "a.txt", "x")
    assert order == ["sync", "rename", "sync"]  # the file, its name, the folder


def test_a_missing_folder_is_a_failure_of_the_work(tmp_path):
    with pytest.raises(WorkError, match=r"a\.txt"):
        write_text(tmp_path / "missing" / "a.txt", "x")


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(WorkError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "x")
    assert _names(tmp_path) == ["a.txt"]


# JSON


@dataclass
class Point:
    x: float
    y: tuple[float, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NAN, None),
        (-INF, None),
        (0.1, 0.1),
        (True, True),
        (None, None),
        ("λ", "λ"),
        ((1, 2.5, NAN), [1, 2.5, None]),
        ({1: INF, "a": [NAN]}, {"1": None, "a": [None]}),
        (np.float64(NAN), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, NAN], [INF, 2.0]]), [[1.0, None], [None, 2.0]]),
        (torch.tensor(3), 3),
        (torch.tensor([NAN, 1.0]), [None, 1.0]),
        (Path("a/b"), "a/b"),
        (Point(NAN, (1.0, INF)), {"x": None, "y": [1.0, None]}),
        ([], []),
    ],
)
def test_jsonable(value, expected):
    found = jsonable(value)
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, Point, b"bytes"])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        jsonable({"a": value})


def test_write_and_read_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"loss": NAN, "steps": (1, 2)})
    assert read_json(path) == {"loss": None, "steps": [1, 2]}
    assert path.read_text().endswith("}\n")


def test_a_value_that_is_not_json_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert _names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe\x00", b"{'a': 1}"])
def test_damaged_json_names_the_file(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*a\.json"):
        read_json(path)


def test_missing_json_names_the_file(tmp_path):
    with pytest.raises(InputError, match=r"missing\.json"):
        read_json(tmp_path / "missing.json")


# Folders


def test_make_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder) == folder  # again
    assert folder.is_dir()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_of_a_folder(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot make the folder"):
        make_folder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(InputError, match="not writable"):
        make_folder(tmp_path)
