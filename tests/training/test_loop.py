"""The loop: history, counting, divergence, schedules, precision."""

import json
import math

import pytest
import torch
from readings import READINGS
from safetensors.torch import load_file

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.methods import METHODS
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.runs.checkpoint import load_checkpoint
from ssgd_analysis.runs.data import prepare_data
from ssgd_analysis.training import train


def config(**changes) -> TrainConfig:
    fields = {"method": "sgd", "data": "two_moons", "model": "mlp", "epochs": 2, "batch_size": 64}
    return TrainConfig(**{**fields, **changes})


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_passes_not_steps(tmp_path, method):
    reading = READINGS[method]
    size = max(64 // reading.minibatches, 1)
    chosen = config(method=method, batch_size=size)
    steps = 2 * (500 // (size * reading.minibatches))
    final = train(chosen, tmp_path / "r")["final"]
    assert final["step"] == steps
    if reading.passes is not None:  # otherwise it is random
        period = 0 if reading.passes == int(reading.passes) else 1  # of which a part may be left
        assert abs(final["gradients"] - reading.passes * steps) <= period


def test_halves_cost_one_pass(tmp_path):
    chosen = config(method="s-sgd", settings={"minibatch": "halves"})
    assert train(chosen, tmp_path / "r")["final"]["gradients"] == 2 * (500 // 64)


def test_history_holds_the_contracts_keys(tmp_path):
    train(config(), tmp_path / "r")
    lines = (tmp_path / "r" / "history.jsonl").read_text().splitlines()
    keys = {
        "epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr",
        "gradients", "seconds", "weight_norm",
    }  # fmt: skip
    assert [keys <= json.loads(line).keys() for line in lines] == [True, True]


def test_last_record_is_of_the_final_weights(tmp_path):
    train(config(model="mlp", label_noise=0.3), tmp_path / "r")
    loss, accuracy = load_checkpoint(str(tmp_path / "r")).problem("train").evaluate()
    record = Run(tmp_path / "r").history()[-1]
    # other batch sizes, so float32 sums in another order
    assert math.isclose(loss, record["train_loss"], rel_tol=1e-5)
    assert math.isclose(accuracy, record["train_accuracy"], rel_tol=1e-9)
    weights = load_file(tmp_path / "r" / "final.safetensors")
    squares = sum(float(w.double().square().sum()) for w in weights.values())
    assert math.isclose(record["weight_norm"], squares**0.5, rel_tol=1e-9)


def test_same_seed_same_bits_other_seed_other_weights(tmp_path):
    weights = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(config(method="s-sgd", seed=seed), tmp_path / name)
        weights[name] = load_file(tmp_path / name / "final.safetensors")["1.weight"]
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])


def test_training_leaves_the_global_generators_alone(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(config(epochs=1), tmp_path / "r")
    assert torch.equal(torch.rand(3), expected)


def test_methods_share_start_order_and_label_noise(tmp_path):
    """With no noise S-SGD is SGD, bit for bit, in the whole loop."""
    train(config(label_noise=0.2), tmp_path / "sgd")
    train(
        config(method="s-sgd", label_noise=0.2, settings={"noise_scale": 0.0}), tmp_path / "s-sgd"
    )
    a, b = (load_file(tmp_path / m / "final.safetensors") for m in ("sgd", "s-sgd"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_divergence_keeps_the_last_good_weights(tmp_path):
    with pytest.raises(WorkError, match=r"diverged.*last good weights"):
        train(config(lr=1e20, epochs=5, data="digits"), tmp_path / "r")
    run = Run(tmp_path / "r")
    assert not run.finished
    kept = run.checkpoints()
    assert kept
    for step in kept:
        loss, _ = load_checkpoint(f"{run.folder}@{step}").problem("train").evaluate()
        assert math.isfinite(loss)


def test_save_every_keeps_steps(tmp_path):
    train(config(epochs=4, save_every=2), tmp_path / "r")
    steps = 500 // 64
    assert list(Run(tmp_path / "r").checkpoints()) == [0, 2 * steps, 4 * steps]
    assert load_checkpoint(f"{tmp_path / 'r'}@0").model is not None


def test_validation_is_held_out(tmp_path):
    chosen = config(data="digits", val=0.2, label_noise=0.2)
    data = prepare_data(chosen)
    assert len(data.val) == round(0.2 * 1297)
    assert len(data.train) + len(data.val) == 1297
    train(chosen, tmp_path / "r")
    assert 0 <= Run(tmp_path / "r").history()[-1]["val_accuracy"] <= 1


def test_bf16_trains_with_float32_weights(tmp_path):
    train(config(data="digits", precision="bf16", epochs=3, batch_size=32), tmp_path / "r")
    weights = load_file(tmp_path / "r" / "final.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert Run(tmp_path / "r").history()[-1]["test_accuracy"] > 0.7


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_base_optimizer_learns(tmp_path, optimizer):
    train(config(optimizer=optimizer, method="s-sgd", epochs=15), tmp_path / "r")
    assert Run(tmp_path / "r").history()[-1]["train_loss"] < 0.4


def test_config_makes_the_run_again(tmp_path):
    train(config(method="wni", settings={"noise_scale": 0.3}), tmp_path / "a")
    train(Run(tmp_path / "a").config(), tmp_path / "b")
    a, b = (load_file(tmp_path / name / "final.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"momentum": 0.9, "optimizer": "adam"}, "momentum"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov"),
        ({"warmup": 3.0}, "warmup"),
        ({"lr": float("nan")}, "lr"),
        ({"label_noise": 1.5}, "label-noise"),
        ({"epochs": 0}, "epochs"),
        ({"momentum": 1.0}, "momentum"),
        ({"settings": {"rho": 1}}, "rho"),
    ],
)
def test_impossible_settings_are_refused_when_made(change, named):
    with pytest.raises(InputError, match=named):
        config(**change)
