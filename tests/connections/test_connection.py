import copy

import nets
import numpy as np
import pytest
import torch

from ssgd_analysis.connections import PATHS, ConnectionSettings, find_connection
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

FEW = ConnectionSettings(points=5, epochs=1, bends=2)


def moved(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for seed, parameter in enumerate(other.parameters()):
            parameter.add_(0.5 * nets.randn(*parameter.shape, seed=seed))
    return other


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"points": 2}, "--points 2"),
        ({"bends": 0}, "--bends 0"),
        ({"epochs": 0}, "--epochs 0"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"bn": "recalibrated"}, "did you mean 'recalibrate'"),
    ],
)
def test_settings_out_of_range_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        ConnectionSettings(**options)


def test_an_unknown_path_is_refused():
    case = nets.mlp()
    with pytest.raises(InputError, match="did you mean 'bezier'"):
        find_connection("bezir", {"train": Problem(*case.problem)}, moved(case.model), FEW)


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("name", ["conv_batchnorm", "frozen", "regression", "attention", "unused"])
def test_every_path_of_any_network(kind, name):
    case = nets.with_state(nets.CASES[name]())
    other = moved(case.model)
    before = nets.state(case.model), nets.state(other)
    test = Problem(case.model, case.loss, case.batches(6))
    splits = {"train": Problem(*case.problem), "test": test}
    done = find_connection(kind, splits, other, FEW)
    assert before == (nets.state(case.model), nets.state(other))
    record = done.record
    assert record["path"] == kind
    assert {split: height["value"] >= 0 for split, height in record["barrier"].items()} == {
        "train": True, "test": True
    }  # fmt: skip
    assert (record["accuracy_barrier"]["train"] is None) == (name == "regression")
    assert (record["permuted"] is None) == (kind != "matched")
    if kind == "line" or (kind == "matched" and name != "frozen"):  # frozen ones are matched, too
        assert record["relative_length"] <= 1 + 1e-12
    batches = 3 + 2 + (3 if name == "conv_batchnorm" else 0)  # train, test, statistics
    extra = 0 if kind != "matched" else record["cost"]["forwards"] - 5 * batches
    assert record["cost"]["forwards"] == 5 * batches + extra
    assert record["cost"]["gradients"] == (3 if kind in ("bezier", "chain") else 0)
    again = find_connection(kind, splits, other, FEW).record
    again["cost"].pop("seconds"), record["cost"].pop("seconds")
    assert again == record


@pytest.mark.parametrize("kind", PATHS)
def test_a_checkpoint_and_itself_have_no_barrier(kind):
    case = nets.conv_batchnorm()
    done = find_connection(kind, {"train": Problem(*case.problem)}, copy.deepcopy(case.model), FEW)
    found = done.record["barrier"]["train"]
    assert done.record["relative_length"] is None
    if kind in ("line", "matched"):
        assert found["value"] == 0
        assert len(set(done.profiles["train"].loss)) == 1  # to the last bit


def test_frozen_statistics_are_noted():
    case = nets.conv_batchnorm()
    frozen = ConnectionSettings(points=3, bn="frozen")
    splits = {"train": Problem(*case.problem)}
    done = find_connection("line", splits, moved(case.model), frozen)
    assert any("BatchNorm" in note for note in done.record["notes"])
    assert done.profiles["train"].loss[0] == splits["train"].mean_loss()
    anew = find_connection("line", splits, moved(case.model), ConnectionSettings(points=3))
    assert anew.record["notes"] == []
    assert (anew.profiles["train"].loss != done.profiles["train"].loss).all()


def test_batches_that_are_no_pairs_have_the_same_barrier():
    case = nets.conv_batchnorm()

    def loss(model, batch):
        return case.loss(model(batch["x"]), batch["y"])

    splits = {"train": Problem(case.model, loss, [{"x": case.inputs, "y": case.targets, "z": 0}])}
    other = moved(case.model)
    pairs = {"train": Problem(case.model, case.loss, case.batches(nets.N))}
    found, expected = (
        find_connection("line", s, other, FEW).profiles["train"] for s in (splits, pairs)
    )
    np.testing.assert_array_equal(found.loss, expected.loss)
    frozen = ConnectionSettings(points=3, epochs=1, bn="frozen")
    for kind in PATHS:
        assert (
            find_connection(kind, splits, other, frozen).record["accuracy_barrier"]["train"] is None
        )


def test_a_loss_that_is_not_finite_is_noted():
    case = nets.mlp()
    other = copy.deepcopy(case.model)
    with torch.no_grad():
        other[-1].bias.fill_(torch.inf)
    done = find_connection("line", {"train": Problem(*case.problem)}, other, FEW)
    assert done.record["barrier"]["train"]["value"] == float("inf")
    assert "not finite" in done.record["notes"][0]
