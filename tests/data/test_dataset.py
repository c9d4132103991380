"""Splits, minibatches, held-out examples and wrong labels."""

import pytest
import torch

from ssgd_analysis.data import Dataset, Split, load_data
from ssgd_analysis.errors import InputError


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _numbered(count: int, classes: int = 5) -> Split:
    """Examples whose input is their own position."""
    return Split(torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count) % classes)


def _dataset(count: int = 100, classes: int = 5) -> Dataset:
    return Dataset("numbered", _numbered(count, classes), _numbered(20, classes))


def _positions(split: Split) -> list[int]:
    return split.inputs[:, 0].long().tolist()


# Splits


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (torch.zeros(0, 3), torch.zeros(0).long()),
        (torch.tensor(1.0), torch.tensor(1)),
    ],
)
def test_an_empty_split_is_refused(inputs, targets):
    with pytest.raises(InputError, match="empty"):
        Split(inputs, targets)


def test_lengths_that_differ_are_refused():
    with pytest.raises(InputError, match="4 inputs but 3 targets"):
        Split(torch.zeros(4, 2), torch.zeros(3).long())


def test_first():
    split = _numbered(10)
    assert _positions(split.first(3)) == [0, 1, 2]
    assert split.first(None) is split
    assert len(split.first(10)) == 10
    with pytest.raises(InputError, match="11 is more than the 10"):
        split.first(11)


def test_batches_keep_order_and_the_short_rest():
    batches = _numbered(10).batches(4)
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 2]
    assert torch.cat([inputs for inputs, _ in batches])[:, 0].tolist() == list(range(10))


def test_to_changes_the_dtype_of_floats_only():
    split = _numbered(4).to("cpu", torch.float64)
    assert split.inputs.dtype == torch.float64
    assert split.targets.dtype == torch.int64


# Minibatches


def test_minibatches_have_the_exact_size_and_repeat_nothing():
    split = _numbered(103)
    batches = list(split.minibatches(10, _generator(0)))
    assert [len(inputs) for inputs, _ in batches] == [10] * 10  # three are left over, dropped
    seen = torch.cat([inputs for inputs, _ in batches])[:, 0].long()
    assert len(seen.unique()) == 100
    assert torch.equal(torch.cat([targets for _, targets in batches]), seen % 5)


def test_minibatches_follow_the_generator_alone():
    def order(generator: torch.Generator) -> list[int]:
        batches = _numbered(50).minibatches(7, generator)
        return torch.cat([inputs for inputs, _ in batches])[:, 0].long().tolist()

    torch.manual_seed(0)
    first = order(_generator(3))
    torch.manual_seed(1)
    assert order(_generator(3)) == first
    assert order(_generator(4)) != first
    generator = _generator(3)
    assert order(generator) == first
    assert order(generator) != first  # the next epoch has another order


def test_another_remainder_is_dropped_each_epoch():
    generator = _generator(0)
    dropped = set()
    for _ in range(20):
        seen = {int(x) for inputs, _ in _numbered(11).minibatches(10, generator) for x in inputs}
        dropped |= set(range(11)) - seen
    assert len(dropped) > 3  # 20 uniform draws of 11; ≤ 3 has probability below 1e-8


def test_a_minibatch_of_everything():
    (batch,) = _numbered(8).minibatches(8, _generator(0))
    assert sorted(batch[0][:, 0].tolist()) == list(range(8))


# Label noise


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_exactly_the_share_of_labels_is_wrong(share):
    data = load_data("digits")
    noisy = data.with_label_noise(share, _generator(0))
    changed = (noisy.train.targets != data.train.targets).sum()
    assert changed == round(share * 1297)
    assert torch.equal(noisy.train.inputs, data.train.inputs)
    assert noisy.train.targets.min() >= 0
    assert noisy.train.targets.max() <= 9


def test_label_noise_leaves_the_original_and_the_test_labels_alone():
    data = load_data("digits")
    before = data.train.targets.clone()
    noisy = data.with_label_noise(1.0, _generator(0))
    assert torch.equal(data.train.targets, before)
    assert torch.equal(noisy.test.targets, data.test.targets)


def test_label_noise_repeats_by_seed():
    data = load_data("digits")
    first = data.with_label_noise(0.2, _generator(7)).train.targets
    assert torch.equal(first, data.with_label_noise(0.2, _generator(7)).train.targets)
    assert not torch.equal(first, data.with_label_noise(0.2, _generator(8)).train.targets)


def test_wrong_labels_are_uniform_over_the_other_classes():
    many = Split(torch.zeros(30_000, 1), torch.full((30_000,), 2))
    data = Dataset("constant", many, Split(torch.zeros(4, 1), torch.arange(4)))
    counts = data.with_label_noise(1.0, _generator(0)).train.targets.bincount(minlength=4)
    assert counts[2] == 0
    # binomial with p = 1/3: standard deviation 82; five of them
    assert (counts[[0, 1, 3]] - 10_000).abs().max() < 410


def test_no_label_noise_changes_nothing():
    data = _dataset()
    assert data.with_label_noise(0.0, _generator(0)) is data


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_share_of_wrong_labels_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="label-noise"):
        _dataset().with_label_noise(share, _generator(0))


def test_label_noise_needs_class_labels():
    values = Split(torch.zeros(10, 2), torch.zeros(10, 1))
    with pytest.raises(InputError, match="class label"):
        Dataset("regression", values, values).with_label_noise(0.2, _generator(0))


# Validation


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_validation_is_disjoint_complete_and_stratified(share):
    data = load_data("digits")
    split = data.with_validation(share, _generator(0))
    assert len(split.val) == round(share * 1297)
    assert len(split.train) + len(split.val) == 1297
    exact = data.train.targets.bincount() * share
    assert (split.val.targets.bincount() - exact).abs().max() <= 1
    assert split.test is data.test


def test_validation_repeats_and_loses_no_example():
    data = _dataset(97)
    split = data.with_validation(0.3, _generator(1))
    assert sorted(_positions(split.train) + _positions(split.val)) == list(range(97))
    assert torch.equal(split.val.targets, split.val.inputs[:, 0].long() % 5)
    same = data.with_validation(0.3, _generator(1))
    other = data.with_validation(0.3, _generator(2))
    assert _positions(same.val) == _positions(split.val)
    assert _positions(other.val) != _positions(split.val)


def test_validation_of_values_to_regress():
    values = Split(torch.arange(10.0)[:, None], torch.arange(10.0))
    split = Dataset("regression", values, values).with_validation(0.3, _generator(0))
    assert len(split.val) == 3
    assert sorted(_positions(split.train) + _positions(split.val)) == list(range(10))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), 0.001, 0.999])
def test_an_impossible_share_for_validation_is_refused(share):
    with pytest.raises(InputError, match="--val"):
        _dataset(10).with_validation(share, _generator(0))


def test_holding_out_every_example_of_a_class_keeps_the_number_of_outputs():
    """The model must still have an output for a class that only validation shows."""
    train = Split(torch.zeros(4, 1), torch.tensor([0, 0, 0, 2]))
    data = Dataset("rare", train, Split(torch.zeros(2, 1), torch.tensor([0, 1])))
    held = data.with_validation(0.75, _generator(0))
    assert 2 in held.val.targets
    assert held.num_outputs == data.num_outputs == 3


# Names


def test_split_by_name():
    data = _dataset().with_validation(0.2, _generator(0))
    assert data.split("train") is data.train
    assert data.split("val") is data.val
    assert data.split("test") is data.test
    with pytest.raises(InputError, match="'val'"):
        _dataset().split("val")
    with pytest.raises(InputError, match="'extra'"):
        data.split("extra")


def test_number_of_outputs():
    labels = Split(torch.zeros(3, 1), torch.tensor([0, 1, 1]))
    more = Split(torch.zeros(3, 1), torch.tensor([0, 1, 4]))
    scalar = Split(torch.zeros(3, 1), torch.zeros(3))
    vector = Split(torch.zeros(3, 1), torch.zeros(3, 7))
    assert Dataset("labels", labels, more).num_outputs == 5
    assert Dataset("scalar", scalar, scalar).num_outputs == 1
    assert Dataset("vector", vector, vector).num_outputs == 7
