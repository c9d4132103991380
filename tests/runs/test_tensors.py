"""Training state on disk: what is written comes back, and what is damaged is refused."""

import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.runs.tensors import (
    read_tensors,
    read_tree,
    save_tree,
)
from ssgd_analysis.weights.tensor_file import save_tensors

SOURCE = Path("weights.safetensors")


def _same(found: object, expected: object) -> bool:
    """Equal in values and types, tensors by dtype and bits."""
    if isinstance(expected, torch.Tensor):
        return (
            isinstance(found, torch.Tensor)
            and found.dtype == expected.dtype
            and found.shape == expected.shape
            and found.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
            == expected.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    if type(found) is not type(expected):
        return False
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(_same(found[k], expected[k]) for k in found)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return found == expected


def _round_trip(folder: Path, tree: dict) -> dict:
    save_tree(folder / "state.safetensors", tree)
    return read_tree(folder / "state.safetensors")


TREES = {
    "plain values": {"a": 1, "b": 0.1, "c": "λ", "d": None, "e": True, "f": [], "g": {}, "h": ()},
    "keys that are integers": {"state": {0: {"step": 1}, 10: {"step": 2}}},
    "tuples and lists": {"betas": (0.9, 0.999), "mixed": [(1, [2, (3,)]), []]},
    "tensors anywhere": {
        "model": {"0.weight": torch.randn(3, 2), "0.bias": torch.zeros(3)},
        "list": [torch.arange(4), (torch.tensor(2.5, dtype=torch.float64),)],
    },
    "dtypes": {
        str(dtype): torch.ones(2, 2).to(dtype)
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8)
    },
    "bits": {"x": torch.tensor([-0.0, math.nan, math.inf, 1e-42])},
    "odd shapes": {
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "bool": torch.ones(2) > 0,
    },
    "floats that need all digits": {"a": 0.1 + 0.2, "b": 1e-310, "c": math.inf, "d": 2**80},
    "names that look like markers": {"__tuple__": 1, "x": {"__tensor__": "y", "__pairs__": [2]}},
    "an integer key beside the same in text": {"s": {1: torch.zeros(1), "1": torch.ones(1)}},
    "a dot in a key": {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1)},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_tree_comes_back_as_it_was(tmp_path, tree):
    assert _same(_round_trip(tmp_path, tree), tree)


def test_views_tied_tensors_and_other_layouts(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tree = {"t": base.T, "row": base[1], "twice": base, "again": base, "images": images}
    assert _same(_round_trip(tmp_path, tree), tree)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizers_state_goes_on_where_it_was(tmp_path, make):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    options = {"momentum": 0.9} if make is torch.optim.SGD else {}
    optimizer = make(model.parameters(), lr=0.1, **options)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    found = _round_trip(tmp_path, optimizer.state_dict())
    assert _same(found, optimizer.state_dict())
    make(model.parameters(), lr=0.5, **options).load_state_dict(found)


def test_a_parameter_that_requires_gradients_is_saved_as_values(tmp_path):
    weight = nn.Parameter(torch.ones(2))
    found = _round_trip(tmp_path, {"w": weight})
    assert found["w"].tolist() == [1, 1]
    assert not found["w"].requires_grad


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, b"bytes", torch.float32])
def test_what_cannot_be_saved_is_named_and_leaves_the_older_file(tmp_path, value):
    path = tmp_path / "state.safetensors"
    save_tree(path, {"a": 1})
    with pytest.raises(TypeError, match=r"inner.*deep"):
        save_tree(path, {"inner": {"deep": value}})
    assert read_tree(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.safetensors"]


def test_no_pickle_is_in_the_file(tmp_path):
    """safetensors: eight bytes of length, a JSON header, then numbers."""
    save_tree(tmp_path / "s.safetensors", {"a": torch.ones(2)})
    content = (tmp_path / "s.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert "__metadata__" in json.loads(content[8 : 8 + length])


def test_named_tensors_and_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.ones(2, 2), "b": torch.zeros(1)}, {"step": "12"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"step": "12"}
    assert _same(tensors["a"], torch.ones(2, 2))
    assert safetensors.torch.load_file(path).keys() == {"a", "b"}  # any reader can open it


def test_metadata_may_be_missing(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    assert read_tensors(tmp_path / "w.safetensors")[1] == {}


# Damage


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("read", [read_tensors, read_tree])
def test_a_truncated_file_is_refused_by_name(tmp_path, share, read):
    path = tmp_path / "state.safetensors"
    save_tree(path, {"a": torch.randn(100), "b": {"c": torch.randn(100)}})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"state\.safetensors") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"not a tensor file at all, but long enough", b"\xff" * 64, b"\x80\x04\x95" + b"\0" * 40],
)
def test_a_foreign_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"state\.safetensors"):
        read_tensors(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_tensors(tmp_path / "missing.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(InputError, match="folder"):
        read_tensors(tmp_path / "folder.safetensors")


@pytest.mark.parametrize("metadata", [{}, {"step": "3"}, {"tree": "{"}, {"tree": '{"a": 1}'}])
def test_a_whole_file_without_a_training_state_is_refused_by_name(tmp_path, metadata):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(1)}, metadata)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        read_tree(path)


def test_a_folder_that_is_not_there_is_a_failure_of_the_work(tmp_path):
    with pytest.raises(WorkError, match=r"s\.safetensors"):
        save_tree(tmp_path / "missing" / "s.safetensors", {"a": 1})
