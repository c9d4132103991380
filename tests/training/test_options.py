"""Options of training that are the same for every method, in whole runs."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ssgd_analysis.comparison.groups import group_runs, problem_differences
from ssgd_analysis.errors import InputError
from ssgd_analysis.optimizers.schedule import scaled_rate
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.training import train
from ssgd_analysis.training.early_stop import EarlyStop
from ssgd_analysis.training.setup import prepare, prepare_data


def config(**changes) -> TrainConfig:
    fields = {"method": "sgd", "data": "two_moons", "model": "mlp", "epochs": 2, "batch_size": 64}
    return TrainConfig(**{**fields, **changes})


def final(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "final.safetensors")


# Early stopping


def _planted(losses: list[float], patience: int, epochs: int) -> tuple[list[dict], float]:
    """Records of a run whose weight is its epoch, and the weight that is given out."""
    model = torch.nn.BatchNorm1d(1)
    early, records = EarlyStop(patience, epochs), []
    for epoch, loss in enumerate(losses, start=1):
        with torch.no_grad():
            for value in (model.weight, model.running_mean):
                value.fill_(epoch)
        record = {"epoch": epoch, "lr": 0.1, "val_loss": loss, "train_loss": -loss}
        records.append(early.update(record, model))
        if early.over:
            break
    assert model.weight == model.running_mean
    return records, model.weight.item()


def test_training_stops_when_the_loss_has_not_fallen_for_so_long():
    records, weight = _planted([5.0, 3.0, 4.0, 3.0, 3.5, 1.0], patience=3, epochs=6)
    assert [record["best_epoch"] for record in records] == [1, 2, 2, 2, 2]  # 3.0 again is no fall
    assert [record["val_loss"] for record in records] == [5.0, 3.0, 4.0, 3.0, 3.0]
    assert records[-1] == {
        "epoch": 5, "lr": 0.1, "val_loss": 3.0, "train_loss": -3.0, "best_epoch": 2
    }  # fmt: skip
    assert weight == 2


def test_the_best_weights_are_given_out_at_the_last_epoch_too():
    records, weight = _planted([5.0, 3.0, 4.0], patience=9, epochs=3)
    assert (len(records), records[-1]["val_loss"], weight) == (3, 3.0, 2)


def test_without_patience_nothing_is_kept():
    records, weight = _planted([5.0, 3.0, 4.0], patience=0, epochs=3)
    assert weight == 3
    assert all("best_epoch" not in record for record in records)


@pytest.mark.parametrize("method", ["s-sgd", "ema"])
def test_a_stopped_run_gives_out_what_its_history_says(tmp_path, method):
    """And a run that is killed at any epoch ends as it."""
    chosen = config(method=method, epochs=40, val=0.3, early_stop=2, lr=0.4, label_noise=0.3)
    record = train(chosen, tmp_path / "a")["final"]
    history = Run(tmp_path / "a").history()
    assert record["epoch"] == record["best_epoch"] + 2 < 40
    assert record["val_loss"] == min(entry["val_loss"] for entry in history)
    assert record["val_loss"] == history[record["best_epoch"] - 1]["val_loss"]
    parts = prepare(chosen)
    parts.model.load_state_dict(final(tmp_path / "a"))
    assert parts.splits["val"].evaluate()[0] == record["val_loss"]

    class Killed(Exception):
        pass

    for at in (1, record["best_epoch"], record["best_epoch"] + 1, record["epoch"]):
        folder = tmp_path / f"killed-{at}"

        class Progress:  # fmt: skip
            def start(self, *args): ...
            def warn(self, message): ...
            def advance(self, steps=1, note="", at=at):
                if f"epoch {at}/" in note and "loss" in note:
                    raise Killed

        with pytest.raises(Killed):
            train(chosen, folder, progress=Progress())
        train(chosen, folder, resume=True)
        again = [{**entry, "seconds": 0} for entry in Run(folder).history()]
        assert again == [{**entry, "seconds": 0} for entry in history]
        assert all(torch.equal(a, b) for a, b in zip(
            final(folder).values(), final(tmp_path / "a").values(), strict=True
        ))  # fmt: skip


def test_a_kill_between_the_stop_and_the_final_weights(tmp_path):
    chosen = config(epochs=40, val=0.3, early_stop=1, lr=0.4)
    train(chosen, tmp_path / "r")
    expected = final(tmp_path / "r")
    (tmp_path / "r" / "final.safetensors").unlink()
    lines = (tmp_path / "r" / "history.jsonl").read_text()
    train(chosen, tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "history.jsonl").read_text() == lines
    assert all(torch.equal(final(tmp_path / "r")[name], expected[name]) for name in expected)


# The others


def test_label_smoothing_is_torchs_and_of_training_only():
    parts = prepare(config(label_smoothing=0.2, model="mlp"))
    outputs, targets = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=0.2)
    assert torch.equal(parts.passes.loss(outputs, targets), expected)
    plain = torch.nn.functional.cross_entropy(outputs, targets)
    assert all(torch.equal(p.loss(outputs, targets), plain) for p in parts.splits.values())


def test_rates_grow_with_the_batch():
    assert scaled_rate(0.1, "none", 512, 128) == 0.1
    assert scaled_rate(0.1, "linear", 512, 128) == pytest.approx(0.4)
    assert scaled_rate(0.1, "sqrt", 512, 128) == pytest.approx(0.2)
    assert scaled_rate(0.1, "linear", 32, 64) == pytest.approx(0.05)


def test_the_scaled_rate_is_the_one_that_is_used(tmp_path):
    chosen = config(lr=0.05, lr_scaling="linear", base_batch=32, epochs=1)
    assert train(chosen, tmp_path / "r")["final"]["lr"] == pytest.approx(0.1)
    train(config(lr=0.1, epochs=1), tmp_path / "plain")
    found, expected = final(tmp_path / "r"), final(tmp_path / "plain")
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_train_samples_are_a_stratified_draw():
    """By the seed, the same for what is measured later; none of them held out."""
    whole, few = (
        prepare_data(config(data="digits")),
        prepare_data(config(data="digits", train_samples=200)),
    )
    assert len(few.train) == 200
    shares = [torch.bincount(d.train.targets, minlength=10) / len(d.train) for d in (whole, few)]
    assert (shares[0] - shares[1]).abs().max() < 1.01 / 200
    again = prepare_data(config(data="digits", train_samples=200))
    other = prepare_data(config(data="digits", train_samples=200, seed=1))
    assert torch.equal(few.train.inputs, again.train.inputs)
    assert not torch.equal(few.train.inputs, other.train.inputs)
    assert torch.equal(few.test.inputs, whole.test.inputs)
    with pytest.raises(InputError, match=r"--train-samples 9999 is more than"):
        prepare_data(config(data="digits", train_samples=9999))


def test_held_out_examples_do_not_depend_on_how_many_train():
    few = prepare_data(config(data="digits", val=0.2, train_samples=100))
    whole = prepare_data(config(data="digits", val=0.2))
    assert torch.equal(few.val.inputs, whole.val.inputs)
    assert len(few.train) == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"channels_last": "on"},
        {"channels_last": "off"},
        {"optimizer_settings": {"fused": False}},
    ],
)
def test_options_of_computing_change_roundings_only(tmp_path, changes):
    """A convolutional network, two steps; float32."""
    base = {"data": "digits", "model": "cnn", "method": "s-sgd", "epochs": 1, "train_samples": 256}
    base["lr"] = 0.01  # a step magnifies roundings by its rate
    train(config(**base), tmp_path / "a")
    train(config(**base, **changes), tmp_path / "b")
    found, expected = final(tmp_path / "b"), final(tmp_path / "a")
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def test_float16_trains_and_resumes(tmp_path):
    """The scale starts at 2¹⁶ and is kept with the state."""
    result = train(config(precision="fp16", method="s-sgd", epochs=6), tmp_path / "r")
    assert result["final"]["train_accuracy"] > 0.85
    state = Run(tmp_path / "r").load_state()["passes"]
    assert state["scale"] <= 2**16
    assert state["good"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # the compiler's own
def test_a_compiled_run_is_the_plain_one_to_rounding(tmp_path):
    for name, compiled in (("a", False), ("b", True)):
        train(config(compile=compiled, method="s-sgd", epochs=1), tmp_path / name)
    found, expected = final(tmp_path / "b"), final(tmp_path / "a")
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"early_stop": 2}, "--early-stop needs .* add --val"),
        ({"label_smoothing": 0.1, "loss": "mse"}, "--label-smoothing needs --loss cross_entropy"),
        ({"label_smoothing": 1.5}, "at most 1"),
        ({"clip": 0.0}, "--clip 0"),
        ({"accumulate": 0}, "--accumulate 0 should be at least 1"),
        ({"lr_scaling": "cubic"}, "lr-scaling 'cubic'"),
        ({"channels_last": "maybe"}, "channels-last 'maybe'"),
        ({"precision": "fp8"}, "precision 'fp8'"),
        ({"method": "lars", "optimizer": "sgd"}, "the method lars always uses lars"),
        ({"method": "lars+ema", "optimizer": "adam"}, "always uses lars"),
        ({"optimizer": "rprop", "weight_decay": 0.1}, "--weight-decay is not a setting"),
        ({"optimizer": "adam", "momentum": 0.9}, "--momentum is not a setting"),
        ({"optimizer": "adam", "nesterov": True}, "--nesterov is not a setting"),
        ({"optimizer_settings": {"betas": [0.1, 0.2]}}, "setting of the optimizer sgd"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        config(**changes)


def test_a_method_brings_its_optimizer():
    assert (config(method="adamw").optimizer, config(method="adamw").lr) == ("adamw", 1e-3)
    assert (config(method="muon").momentum, config(method="lars+ema").optimizer) == (0.95, "lars")
    assert config(method="adam", optimizer="adam") == config(method="adam")
    assert config().optimizer == "sgd"


def test_configs_of_earlier_versions_load():
    new = config().to_json()
    added = {
        "optimizer_settings", "lr_scaling", "base_batch", "accumulate", "clip", "label_smoothing",
        "early_stop", "train_samples", "compile", "channels_last",
    }  # fmt: skip
    old = {key: value for key, value in json.loads(json.dumps(new)).items() if key not in added}
    assert added <= new.keys()
    assert TrainConfig.from_json(old) == config()


def test_options_are_settings_of_a_comparison(tmp_path):
    for name, changes in (("a", {}), ("b", {"clip": 1.0}), ("c", {"train_samples": 200})):
        train(config(epochs=1, **changes), tmp_path / name)
    groups = group_runs([Run(tmp_path / name) for name in "abc"])
    assert len(groups) == 3
    assert problem_differences(groups[0].config, groups[1].config) == ""
    assert problem_differences(groups[0].config, groups[2].config) == "train_samples (0, 200)"


def test_own_options_of_the_optimizer_are_kept_with_the_run(tmp_path):
    chosen = config(optimizer="adam", optimizer_settings={"betas": "0.5,0.6"}, epochs=1)
    train(chosen, tmp_path / "r")
    record = json.loads((tmp_path / "r" / "config.json").read_text())
    assert record["optimizer_settings"] == {"betas": [0.5, 0.6]}
    assert Run(tmp_path / "r").config() == chosen
