"""``train --batch-seeds``."""

import pytest
import torch
from safetensors.torch import load_file

from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.training import train

OPTIONS = ["--method", "s-sgd", "--data", "two_moons", "--model", "mlp", "--epochs", 1]


def test_every_seed_has_its_folder(tmp_path, run):
    outcome = run("train", *OPTIONS, "--seed", 4, "--batch-seeds", 3, "--out", tmp_path, "--json")
    assert outcome.status == 0, outcome.err
    runs = outcome.json["runs"]
    assert [one["run"] for one in runs] == [str(tmp_path / f"seed-{s}") for s in (4, 5, 6)]
    assert [one["config"]["seed"] for one in runs] == [4, 5, 6]
    config = TrainConfig(method="s-sgd", data="two_moons", model="mlp", epochs=1, seed=5)
    train(config, tmp_path / "alone")
    mine, alone = (load_file(tmp_path / f / "final.safetensors") for f in ("seed-5", "alone"))
    for name, tensor in alone.items():  # three float32 steps: see tests/training/test_together.py
        torch.testing.assert_close(
            mine[name], tensor, rtol=0, atol=1e-5 * float(tensor.abs().max())
        )


def test_resume_takes_the_settings_from_what_is_there(tmp_path, run):
    assert run("train", *OPTIONS, "--batch-seeds", 1, "--out", tmp_path).status == 0
    outcome = run("train", "--resume", "--batch-seeds", 2, "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("seed-") == 2
    first, second = (Run(tmp_path / f"seed-{s}").config() for s in (0, 1))
    assert {**vars(first), "seed": 1} == vars(second)


def test_a_run_that_fails_leaves_the_others(tmp_path, run):
    assert run("train", *OPTIONS, "--out", tmp_path / "seed-1").status == 0
    outcome = run("train", *OPTIONS, "--batch-seeds", 3, "--out", tmp_path, "--json")
    assert outcome.status == 2
    assert "seed-1" in outcome.error
    assert "already holds a run" in outcome.error
    assert ["error" in one for one in outcome.json["runs"]] == [False, True, False]
    assert Run(tmp_path / "seed-2").finished


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_wrong_number_is_refused(tmp_path, run, count):
    assert run("train", *OPTIONS, "--batch-seeds", count, "--out", tmp_path / "r").status == 2
    assert not (tmp_path / "r").exists()
