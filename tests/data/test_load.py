"""Data by name and by reference: what is accepted, and what each refusal says."""

from collections.abc import Mapping

import pytest
import torch

from ssgd_analysis.data import default_folder, load_data
from ssgd_analysis.errors import InputError

HEADER = "import torch\nfrom torch.utils.data import Dataset, TensorDataset\n"
M = [[True, True]] * 2  # masks stay masks
GOOD = "(torch.zeros(4, 3), torch.tensor([0, 1, 2, 1]))"


@pytest.fixture
def reference(tmp_path):
    """Write ``def make(): return …`` to a file and give its reference."""

    def write(returned: str, before: str = "") -> str:
        path = tmp_path / "mydata.py"
        path.write_text(f"{HEADER}{before}\ndef make():\n    return {returned}\n")
        return f"{path}:make"

    return write


def test_pairs_of_tensors(reference):
    name = reference("(torch.ones(6, 2, 5), torch.arange(6)), (torch.zeros(3, 2, 5), [0, 1, 6])")
    data = load_data(name)
    assert data.name == name
    assert data.input_shape == (2, 5)
    assert data.train.targets.tolist() == list(range(6))
    assert data.test.targets.tolist() == [0, 1, 6]
    assert data.num_outputs == 7
    assert data.train.targets.dtype == torch.int64


def test_map_style_data_sets(reference):
    name = reference(
        "TensorDataset(torch.arange(8.).reshape(4, 2), torch.arange(4)), Mine()",
        before="class Mine(Dataset):\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, i):\n"
        "        if not 0 <= i < 2: raise RuntimeError('out of range')\n"
        "        return torch.full((2,), float(i)), i\n",
    )
    data = load_data(name)
    assert data.train.inputs.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert data.test.inputs.tolist() == [[0, 0], [1, 1]]
    assert data.test.targets.tolist() == [0, 1]


def test_a_data_set_of_two_examples_is_no_pair_of_tensors(reference):
    two = "TensorDataset(torch.zeros(2, 3), torch.arange(2))"
    assert load_data(reference(f"{two}, {two}")).train.inputs.shape == (2, 3)


EXAMPLES = [
    # as given, what a batch of two of them is
    ("{'x': torch.arange(3), 'mask': torch.ones(3, 2).bool()}", {"x": [0, 1], "mask": M}),
    ("[dict(x=i, mask=[True] * 2) for i in range(3)]", {"x": [0, 1], "mask": M}),
    ("UserDict(x=torch.arange(3))", {"x": [0, 1]}),
    ("(torch.arange(3), torch.ones(3, 2).bool(), torch.arange(3))", ([0, 1], M, [0, 1])),
    ("[(i, [True] * 2, torch.tensor(i)) for i in range(3)]", ([0, 1], M, [0, 1])),
    ("TensorDataset(torch.arange(3))", ([0, 1],)),
    ("[(torch.tensor(i),) for i in range(3)]", ([0, 1],)),
    ("torch.arange(3)", [0, 1]),
    ("[torch.tensor(i) for i in range(3)]", [0, 1]),
    ("({'x': torch.arange(3)}, torch.arange(3))", ({"x": [0, 1]}, [0, 1])),
    ("[({'x': i}, i) for i in range(2)]", ({"x": [0, 1]}, [0, 1])),
    ("((torch.arange(3), torch.ones(3, 2).bool()), torch.arange(3))", (([0, 1], M), [0, 1])),
    ("[Named(torch.tensor(i), i) for i in range(3)]", ([0, 1], [0, 1])),
]


def lists(batch):
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    if isinstance(batch, Mapping):
        return {key: lists(value) for key, value in batch.items()}
    return tuple(lists(part) for part in batch)


@pytest.mark.parametrize(("given", "expected"), EXAMPLES)
def test_examples_of_any_structure(reference, given, expected):
    before = "from collections import UserDict, namedtuple\nNamed = namedtuple('Named', 'a b')"
    data = load_data(reference(f"{given}, {given}", before))
    assert lists(data.train.batches(2)[0]) == expected
    assert sum(map(len, [data.train.take(torch.tensor([0])), data.train.first(1)])) == 2


def test_data_without_targets(reference):
    test = "{'x': torch.zeros(2, 3), 'n': [0, 1]}"
    name = reference("{'x': torch.zeros(8, 3), 'n': torch.arange(8)}, " + test)
    data = load_data(name).to("cpu", torch.float64)
    assert data.input_shape == (3,)
    assert data.num_outputs is None
    assert not data.classification
    assert data.train.inputs["x"].dtype == torch.float64
    assert data.train.inputs["n"].dtype == torch.int64
    assert [len(batch["n"]) for batch in data.train.batches(3)] == [3, 3, 2]
    held = data.with_validation(0.25, torch.Generator())
    both = torch.cat([held.train.inputs["n"], held.val.inputs["n"]])
    assert (len(held.val), sorted(both.tolist())) == (2, list(range(8)))
    with pytest.raises(InputError, match="one class label"):
        data.with_label_noise(0.5, torch.Generator())
    drawn = list(data.train.minibatches(3, torch.Generator()))
    assert [tuple(batch["x"].shape) for batch in drawn] == [(3, 3)] * 2
    assert len({int(n) for batch in drawn for n in batch["n"]}) == 6


def test_values_to_regress_stay_floats(reference):
    pair = "(torch.zeros(4, 3), torch.tensor([0.5, 1, 2, 3]))"
    data = load_data(reference(f"{pair}, {pair}"))
    assert not data.classification
    assert data.num_outputs == 1
    assert data.train.targets.tolist() == [0.5, 1, 2, 3]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", torch.float32),  # pixels
        ("bool", torch.float32),
        ("int32", torch.int64),  # tokens
        ("float64", torch.float64),
        ("float16", torch.float16),
    ],
)
def test_dtypes_of_inputs(reference, dtype, expected):
    pair = f"(torch.ones(4, 3, dtype=torch.{dtype}), torch.arange(4, dtype=torch.uint8))"
    data = load_data(reference(f"{pair}, {pair}"))
    assert data.train.inputs.dtype == expected
    assert (data.train.inputs == 1).all()
    assert data.train.targets.dtype == torch.int64


def test_bytes_keep_their_values(reference):
    pair = "(torch.tensor([[0, 128, 255]], dtype=torch.uint8), torch.tensor([0]))"
    assert load_data(reference(f"{pair}, {pair}")).train.inputs.tolist() == [[0, 128, 255]]


def test_tensors_that_require_gradients_are_cut_off(reference):
    pair = "(torch.zeros(4, 3, requires_grad=True) * 2, torch.arange(4))"
    assert not load_data(reference(f"{pair}, {pair}")).train.inputs.requires_grad


REFUSED = [
    (f"(torch.zeros(0, 3), torch.zeros(0).long()), {GOOD}", "train", "empty"),
    (f"{GOOD}, (torch.zeros(0, 3), torch.zeros(0).long())", "test", "empty"),
    (f"TensorDataset(torch.zeros(0, 3), torch.zeros(0).long()), {GOOD}", "train", "empty"),
    (f"(torch.zeros(4, 3), torch.zeros(5).long()), {GOOD}", "train", "4 inputs but 5 targets"),
    (f"{GOOD}, (torch.zeros(2, 9), torch.tensor([0, 1]))", "test", "(9,)"),
    (f"(n for n in range(3)), {GOOD}", "train", "generator"),
    (f"42, {GOOD}", "train", "int"),
    (f"{GOOD}, None", "test", "NoneType"),
    (f"(torch.zeros(4, 3), ['cat', 'dog', 'cat', 'dog']), {GOOD}", "train", "str"),
    (f"['one', 'two', 'three'], {GOOD}", "train", "str"),
    ("{'x': torch.zeros(4, 3)}, {'x': torch.zeros(2, 9)}", "test", "(9,)"),
    ("{'x': torch.zeros(4, 3)}, {'z': [torch.zeros(2, 3)], 'x': 1}", "test", "shapes (2, 3), ()"),
    ("{'x': torch.zeros(4, 3), 'y': torch.zeros(5)}, None", "train", "(4, 3), (5,)"),
    ("{'x': torch.zeros(0, 3)}, None", "train", "empty"),
    ("{}, None", "train", "empty"),
    ("{'x': torch.zeros(4), 'name': ['a', 'b', 'c', 'd']}, None", "train", "str"),
    ("[{'x': torch.zeros(3)}, {'y': torch.zeros(3)}], None", "train", "same parts"),
    ("[{'x': torch.zeros(3)}, {'x': torch.zeros(4)}], None", "train", "equal size"),
    (f"Broken(), {GOOD}", "train", "disk on fire"),
]
BROKEN = (
    "class Broken(Dataset):\n"
    "    def __len__(self): return 3\n"
    "    def __getitem__(self, i): raise OSError('disk on fire')\n"
)


@pytest.mark.parametrize(("returned", "part", "why"), REFUSED)
def test_unfit_data_is_refused_with_its_name_split_and_reason(reference, returned, part, why):
    name = reference(returned, BROKEN)
    with pytest.raises(InputError) as caught:
        load_data(name)
    message = str(caught.value)
    assert name in message
    assert part in message
    assert why in message


def test_a_refusal_names_the_data_set_once(reference):
    name = reference(f"TensorDataset(torch.zeros(0, 3), torch.zeros(0).long()), {GOOD}")
    with pytest.raises(InputError) as caught:
        load_data(name)
    assert str(caught.value).count(name) == 1


@pytest.mark.parametrize("returned", ["None", "3", f"{GOOD}, {GOOD}, {GOOD}", f"({GOOD},)"])
def test_not_train_and_test(reference, returned):
    name = reference(returned)
    with pytest.raises(InputError, match=r"should return \(train, test\)") as caught:
        load_data(name)
    assert name in str(caught.value)


def test_a_factory_that_raises(reference):
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load_data(reference("1 / 0"))


@pytest.mark.parametrize(
    ("name", "near"), [("digit", "digits"), ("cifar-10", "cifar10"), ("two-moons", "two_moons")]
)
def test_an_unknown_name_comes_with_the_nearest(name, near):
    with pytest.raises(InputError, match=f"unknown data set '{name}': did you mean '{near}'"):
        load_data(name)


def test_the_default_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "ssgd-analysis" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "ssgd-analysis" / "data"
