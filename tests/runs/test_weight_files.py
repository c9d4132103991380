"""Files and folders are judged by content; what could run code is refused."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import pickle
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs.weight_files import has_weights, read_weight_file

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
SUFFIXES = ("", ".ckpt", ".bin", ".th", ".pth.tar", ".pt", ".safetensors", ".txt")


def same(found, expected=WEIGHTS) -> bool:
    pairs = [(found[name], expected[name]) for name in expected]
    return found.keys() == expected.keys() and all(torch.equal(*pair) for pair in pairs)


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_weight_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_content_decides_and_not_the_suffix(tmp_path, suffix, kind):
    path = tmp_path / f"weights{suffix}"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    assert same(read_weight_file(path))


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, device=torch.device("cpu")),
        types.SimpleNamespace(lr=0.1),
        pathlib.PurePosixPath("a/b"),
        pathlib.Path("a"),
        np.float64(0.5),
        np.arange(3),
        np.dtype("float32"),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        collections.deque([1, 2], maxlen=2),
        collections.defaultdict(dict, {"a": {}}),
        collections.defaultdict(list),
        collections.OrderedDict(a=1),
        collections.Counter("ab"),
        {1, 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_records_beside_the_weights_are_no_obstacle(tmp_path, beside):
    torch.save({"args": beside, "model": WEIGHTS}, tmp_path / "w.ckpt")
    allowed = set(torch.serialization.get_safe_globals())
    assert same(read_weight_file(tmp_path / "w.ckpt")["model"])
    assert set(torch.serialization.get_safe_globals()) == allowed  # it holds for this file only


def test_weights_in_a_defaultdict(tmp_path):
    torch.save(collections.defaultdict(dict, model=WEIGHTS), tmp_path / "w")
    assert same(read_weight_file(tmp_path / "w")["model"])


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, argument, call) -> None:
        self.argument, self.call = argument, call

    def __reduce__(self):
        return (self.call, (self.argument,))


@pytest.mark.parametrize("call", [eval, exec, os.mkdir, pathlib.Path.touch])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_pickles_with_code_are_refused_and_nothing_runs(tmp_path, call, legacy, raw):
    trap = tmp_path / "trap"
    code = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    argument = {eval: code, exec: code, os.mkdir: str(trap), pathlib.Path.touch: trap}[call]
    pickle.loads(pickle.dumps(Evil(argument, call)))
    assert trap.exists()  # it would work
    trap.rmdir() if trap.is_dir() else trap.unlink()
    content = {"model": WEIGHTS, "extra": Evil(argument, call)}
    path = tmp_path / "evil.pt"
    if raw:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = refusal(path)
    assert "weights-only" in found
    assert "model.state_dict()" in found
    assert not trap.exists()


def test_a_pickled_model_is_refused_by_name(tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "model.pt")
    assert "it needs torch.nn.modules.linear.Linear" in refusal(tmp_path / "model.pt")


def test_torchscript_is_refused(tmp_path):
    torch.save({}, tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "a") as archive:  # torch goes by this entry
        archive.writestr("script/constants.pkl", b"")
    assert "TorchScript" in refusal(tmp_path / "script.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files(tmp_path, kind, share):
    path = tmp_path / "w"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"0.1 0.2", "neither a safetensors file nor one that torch.save wrote"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "neither"),
        (b"PK\x03\x04 an archive of another kind", "damaged or not a torch file"),
        (b"\x80", "damaged or not a torch file"),
        ((2**40).to_bytes(8, "little") + b"{", "not a readable tensor file"),
    ],
)
def test_what_is_no_weight_file(tmp_path, content, words):
    (tmp_path / "file.pt").write_bytes(content)
    assert words in refusal(tmp_path / "file.pt")


# Folders


def shards(folder, kind: str = "safetensors") -> pathlib.Path:
    """Two files and their index, as save_pretrained writes them."""
    stem, suffix = ("model", kind) if kind == "safetensors" else ("pytorch_model", "bin")
    names = {"a.weight": f"{stem}-1.{suffix}", "b": f"{stem}-2.{suffix}"}
    for name, file in names.items():
        part = {name: WEIGHTS[name]}
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_through_their_index(tmp_path, kind):
    index = shards(tmp_path, kind)
    (tmp_path / "config.json").write_text("{}")
    torch.save({}, tmp_path / "training_args.bin")
    assert has_weights(tmp_path)
    assert same(read_weight_file(tmp_path))
    assert same(read_weight_file(index))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "other.safetensors"])
def test_a_folder_with_one_weight_file(tmp_path, name):
    if name.endswith("bin"):
        torch.save(WEIGHTS, tmp_path / name)
    else:
        save_file(WEIGHTS, tmp_path / name)
    assert same(read_weight_file(tmp_path))
    assert has_weights(tmp_path) == name.startswith(("model", "pytorch_model"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight_map": {"a.weight": "../w.safetensors"}}, "not a file beside it"),
        ({"weight_map": {"a.weight": "/etc/passwd"}}, "not a file beside it"),
        ({"weight_map": {"a.weight": "model-3.safetensors"}}, "copy all of the files"),
        ({"weight_map": {"c": "model-1.safetensors"}}, "names tensor 'c', which"),
        ({"weight_map": {"c": 1}}, "no 'weight_map'"),
        ({}, "no 'weight_map'"),
        ([], "no 'weight_map'"),
    ],
)
def test_an_index_that_is_wrong(tmp_path, change, words):
    index = shards(tmp_path)
    index.write_text(json.dumps(change))
    assert words in refusal(index)


def test_folders_without_one_weight_file(tmp_path):
    assert "no weight file" in refusal(tmp_path)
    for name in "ab":
        save_file(WEIGHTS, tmp_path / f"{name}.safetensors")
    assert "2 of them" in refusal(tmp_path)
