"""Loaders of batches: read into memory, or anew at every pass; what differs between passes."""

import collections
import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ssgd_analysis import streams
from ssgd_analysis.curvature import HessianOperator
from ssgd_analysis.data import BatchedSplit, Split, load_data, loader
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.streams import Stream

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
PAIRS = TensorDataset(X, Y)


@dataclasses.dataclass
class Both:
    x: torch.Tensor
    y: torch.Tensor


Named = collections.namedtuple("Named", "x y z")


class Noisy(Dataset):
    """An augmentation: other examples at every pass."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index] + torch.randn(3), Y[index]


class Examples(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Batches:
    """An iterable that is neither a loader nor a data set."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Dicts(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return {"x": X[index], "y": Y[index]}


@pytest.fixture
def load(monkeypatch):
    """Load what a reference would return."""

    def given(made, **options):
        monkeypatch.setattr("ssgd_analysis.references.resolve", lambda *_: lambda: made)
        return load_data("mine.py:make", **options)

    return given


SIZES = X.split(4), Y.split(4)
SAME = [
    DataLoader(PAIRS, batch_size=4),
    Batches(*zip(*SIZES, strict=True)),
    Batches(*([x.numpy(), y.numpy()] for x, y in zip(*SIZES, strict=True))),
    Examples(),
    DataLoader(Examples(), batch_size=4),
]


@pytest.mark.parametrize("made", SAME, ids=lambda made: type(made).__name__)
@pytest.mark.parametrize("stream", [False, True])
def test_pairs_of_any_origin_are_the_same_examples(load, made, stream):
    data = load((made, made), stream=stream)
    assert isinstance(data.train, BatchedSplit if stream else Split)
    assert (len(data.train), data.input_shape, data.num_outputs) == (10, (3,), 3)
    inputs, targets = zip(*data.train.batches(4), strict=True)
    assert torch.equal(torch.cat(inputs), X)
    assert torch.equal(torch.cat(targets), Y)
    assert torch.equal(torch.cat([y for _, y in data.train.first(6).batches(4)]), Y[:6])


OTHERS = {
    "dataclasses": Both(X, Y),
    "namedtuples": Named(X, Y, Y),
    "defaultdicts": collections.defaultdict(list, x=X, y=Y),
    "tuples of four": (X, Y, X, Y),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("stream", [False, True])
def test_batches_of_any_structure_keep_it(load, kind, stream):
    from ssgd_analysis import batch as batching

    given = OTHERS[kind]
    made = Batches(batching.between(given, 0, 6), batching.between(given, 6, 10))
    train = load((made, made), stream=stream).train
    batches = train.batches(6)
    assert {type(batch) for batch in batches} == {type(given)}
    joined = batching.tensors(batching.joined(list(batches)))
    assert all(map(torch.equal, joined, batching.tensors(given)))


def test_a_data_set_of_dictionaries_streams_too(load):
    held, read = (load((Dicts(), Dicts()), stream=stream).train for stream in (False, True))
    assert torch.equal(held.inputs["x"], read.batches(4)[0]["x"])


def test_a_dictionary_of_splits_or_a_loader_alone(load):
    loaders = {name: DataLoader(PAIRS, batch_size=5) for name in ("train", "test", "val")}
    assert len(load(loaders).split("val")) == 10
    alone = load(loaders["train"])
    assert len(alone.split("train")) == 10
    with pytest.raises(InputError, match="no test examples"):
        alone.split("test")


def test_batches_of_several_shapes_stay_batches(load):
    """Padded to the longest text of a batch, and one object that is no tensor."""
    made = Batches({"t": torch.zeros(4, 5), "id": "a"}, {"t": torch.ones(2, 7), "id": "b"})
    data = load((made, made)).to("cpu", torch.float64)
    assert [batch["t"].dtype for batch in data.train.batches(1)] == [torch.float64] * 2
    assert [len(batch["t"]) for batch in data.train.first(5).batches(1)] == [4, 1]
    drawn = list(data.train.minibatches(2, torch.Generator()))
    assert len(drawn) == data.train.steps(2) == 3
    assert sorted({batch["id"] for batch in drawn}) == ["a", "b"]
    with pytest.raises(InputError, match="--val draws single examples"):
        data.with_validation(0.5, torch.Generator())


@pytest.mark.parametrize("stream", [False, True])
def test_a_loader_that_shuffles_is_fixed_and_says_so(load, stream, caplog):
    made = DataLoader(PAIRS, batch_size=4, shuffle=True)
    data = load((made, made), stream=stream)
    assert "the loader shuffles" in caplog.text
    first, again = ([y.tolist() for _, y in data.train.batches(4)] for _ in range(2))
    assert first == again
    assert sorted(label for labels in first for label in labels) == sorted(Y.tolist())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "made", [DataLoader(Noisy(), 4), DataLoader(PAIRS, 4, shuffle=True, drop_last=True)]
)
def test_other_examples_at_every_pass_are_refused(load, made, stream):
    with pytest.raises(InputError, match="train: the loader gives other examples at every pass"):
        load((made, made), stream=stream)


def test_other_examples_in_the_last_batch_alone_are_refused(load):
    passes = iter(range(9))

    class Drifting:
        def __iter__(self):
            drift = next(passes)
            return iter([(X[:4], Y[:4]), (X[4:] + drift, Y[4:])])

    with pytest.raises(InputError, match="other examples at every pass"):
        load((Drifting(), PAIRS))


def test_a_stream_that_shuffles_by_its_own_generator_is_refused(load):
    made = DataLoader(PAIRS, 4, shuffle=True, generator=torch.Generator())
    assert len(load((made, made)).train) == 10
    with pytest.raises(InputError, match="a generator of its own"):
        load((made, made), stream=True)


def test_an_iterator_is_read_once(load, caplog):
    data = load((iter([(X, Y)]), DataLoader(PAIRS)))
    assert torch.equal(data.train.inputs, X)
    assert "is read once" in caplog.text
    with pytest.raises(InputError, match="can be read only once"):
        load((iter([(X, Y)]), DataLoader(PAIRS)), stream=True)


def test_more_than_the_memory_names_stream(load, monkeypatch):
    monkeypatch.setattr(loader, "free_bytes", lambda device: 300)
    made = DataLoader(PAIRS, 4)
    with pytest.raises(InputError, match="add --stream"):
        load((made, made))
    assert len(load((made, made), stream=True).train) == 10


def test_loading_leaves_the_global_generators_alone(load):
    made = DataLoader(PAIRS, batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    load((made, made), stream=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_problem_of_a_stream_measures_what_one_in_memory_does(load):
    made = DataLoader(PAIRS, batch_size=4)
    model = nn.Linear(3, 3).double()
    held, read = (
        Problem(model, nn.CrossEntropyLoss(), data.to("cpu", torch.float64).train.batches(4))
        for data in (load((made, made)), load((made, made), stream=True))
    )
    assert isinstance(read.batches, Stream)
    assert read.evaluate() == held.evaluate()
    assert all(map(torch.equal, read.gradient(), held.gradient()))
    assert read.divisible
    assert read.cut(2) is None
    assert [piece[0][1] for piece in read.cut(4)] == [1.0] * 3
    vector = torch.ones(held.n_parameters, dtype=torch.float64)
    products = [HessianOperator(problem) @ vector for problem in (held, read)]
    torch.testing.assert_close(*products)
    assert read.fingerprint() == held.fingerprint()


def test_a_stream_that_changes_is_refused_where_it_does():
    given = [X[:4].clone(), X[4:].clone()]
    counts, digests = [4, 6], [streams.digest(batch) for batch in given]
    stream = Stream("mine", lambda seed: streams.read(given, seed), counts, digests)
    assert [len(batch) for batch in stream] == counts
    assert torch.equal(stream[1], X[4:])
    assert torch.equal(stream[0], X[:4])
    given[1][0, 0] += 1
    with pytest.raises(InputError, match="mine: the loader gives another batch 2"):
        list(stream)


def test_minibatches_of_a_stream_are_recut_and_shuffled_by_epoch(load):
    made = DataLoader(PAIRS, batch_size=4, shuffle=True)
    train = load((made, made), stream=True).train
    epochs = [list(train.minibatches(3, torch.Generator().manual_seed(seed))) for seed in (1, 2, 1)]
    assert [len(y) for _, y in epochs[0]] == [3, 3, 3]
    seen = [torch.cat([x for x, _ in epoch]) for epoch in epochs]
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert len(seen[0].unique(dim=0)) == 9


CHANGES = [
    lambda x: x.flip(0),
    lambda x: x + 1e-6,
    lambda x: torch.cat([x[:1], x[:1], x[2:]]),
    lambda x: x.flip(1),
    lambda x: x.double(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_digests_tell_batches_apart(change):
    whole, placed = streams.digest((X, Y))
    assert streams.digest((X.clone(), Y)) == (whole, placed)
    assert streams.digest((change(X), Y))[1] != placed
    assert streams.digest((change(X), Y))[0] != whole  # pairs, though rows alone were swapped
    order = torch.randperm(10)
    swapped = streams.digest((X[order], Y[order]))
    assert swapped[0] == whole
    parts = streams.digest((X[:3], Y[:3]))[0] + streams.digest((X[3:], Y[3:]))[0]
    assert parts % streams.WRAP == whole
