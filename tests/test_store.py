"""Entries of a store: found under their key only, whole or not there, named when damaged."""

import numpy as np
import pytest

from ssgd_analysis.errors import InputError
from ssgd_analysis.store import KeyedStore, digest

KEY = {"weights": "1f3a", "settings": {"sigma": 0.1, "layers": ("a", "b")}}
OTHER = {**KEY, "weights": "99ab"}


def test_an_entry_is_found_under_its_name_and_key_only(tmp_path):
    store = KeyedStore(tmp_path / "new" / "folder")
    assert store.read("000", KEY) is None
    written = store.write("000", KEY, {"value": 0.1 + 0.2, "nothing": float("nan")})
    assert written == store.path("000")
    assert store.read("000", KEY) == {"value": 0.1 + 0.2, "nothing": None}
    assert store.read("001", KEY) is None
    assert store.read("000", OTHER) is None
    store.write("000", OTHER, 1)
    assert store.read("000", KEY) is None
    assert store.read("000", OTHER) == 1
    assert [path.name for path in store.folder.iterdir()] == ["000.json"]


def test_arrays_come_back_bit_for_bit(tmp_path):
    store = KeyedStore(tmp_path)
    arrays = {"loss": np.array([0.1, np.nan, np.inf]), "done": np.array([True, False])}
    assert store.read_arrays("0-1", KEY) is None
    store.write_arrays("0-1", KEY, {"plan": "stacked"}, arrays)
    value, found = store.read_arrays("0-1", KEY)
    assert value == {"plan": "stacked"}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].tobytes() == array.tobytes()
    assert store.read_arrays("0-1", OTHER) is None
    assert store.read("0-1", KEY) is None  # another kind of entry


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff" * 40])
def test_a_damaged_entry_is_an_error_that_names_it(tmp_path, content):
    store = KeyedStore(tmp_path)
    for arrays in (False, True):
        store.path("000", arrays=arrays).write_bytes(content)
    for read, ending in ((store.read, "json"), (store.read_arrays, "npz")):
        with pytest.raises(InputError, match=rf"000\.{ending} is damaged.*remove it"):
            read("000", KEY)


def test_a_json_file_of_another_kind_is_no_entry(tmp_path):
    store = KeyedStore(tmp_path)
    for content in ("[1]", "3", '{"key": 1}'):
        store.path("000").write_text(content)
        assert store.read("000", KEY) is None


def test_a_digest_depends_on_all_of_the_key_but_not_on_its_order():
    assert digest(KEY) == digest(dict(reversed(KEY.items())))
    assert digest(KEY) != digest(OTHER)
    assert digest({"a": ("x",)}) == digest({"a": ["x"]})  # as JSON has it
