"""``train --seeds``."""

import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.training import train

OPTIONS = ["--method", "s-sgd", "--data", "two_moons", "--model", "mlp", "--epochs", 1]


def assert_same_bits(one, other):
    first, second = (load_file(folder / "final.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_seed_has_its_folder_and_is_the_run_alone(tmp_path, run, jobs):
    options = ["--seed", 4, "--seeds", 3, "--jobs", jobs]
    outcome = run("train", *OPTIONS, *options, "--out", tmp_path, "--json")
    assert outcome.status == 0, outcome.err
    runs = outcome.json["runs"]
    assert [one["run"] for one in runs] == [str(tmp_path / f"seed-{s}") for s in (4, 5, 6)]
    assert [one["config"]["seed"] for one in runs] == [4, 5, 6]
    config = TrainConfig(method="s-sgd", data="two_moons", model="mlp", epochs=1, seed=5)
    train(config, tmp_path / "alone")
    assert_same_bits(tmp_path / "seed-5", tmp_path / "alone")


def test_resume_takes_the_settings_from_what_is_there(tmp_path, run):
    assert run("train", *OPTIONS, "--seeds", 1, "--out", tmp_path).status == 0
    outcome = run("train", "--resume", "--seeds", 2, "--jobs", 1, "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    assert "finished already: seed-0 (1 of 2 left)" in outcome.err
    assert outcome.out.count("seed-") == 2
    first, second = (Run(tmp_path / f"seed-{s}").config() for s in (0, 1))
    assert {**vars(first), "seed": 1} == vars(second)
    outcome = run("train", "--resume", "--seeds", 2, "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    assert "seed-0, seed-1 (all)" in outcome.err


def test_a_seed_that_fails_is_named_and_the_rest_go_on(tmp_path, run):
    assert run("train", *OPTIONS, "--seed", 1, "--out", tmp_path / "seed-1").status == 0
    (tmp_path / "seed-1" / "final.safetensors").unlink()
    (tmp_path / "seed-1" / "state.safetensors").write_bytes(b"damaged")
    options = ["--seeds", 3, "--jobs", 1, "--resume", "--out", tmp_path, "--json"]
    outcome = run("train", *OPTIONS, *options)
    assert outcome.status == 1
    assert "1 of 3 runs failed (seed-1)" in outcome.error
    assert ["error" in one for one in outcome.json["runs"]] == [False, True, False]
    assert Run(tmp_path / "seed-2").finished


def test_input_that_is_wrong_for_every_seed_is_a_wrong_input(tmp_path, run):
    options = ["--seeds", 2, "--jobs", 1, "--out", tmp_path]
    outcome = run("train", *OPTIONS, "--batch-size", 5000, *options)
    assert outcome.status == 2
    assert "--batch-size 5000" in outcome.error


def test_folders_that_hold_runs_are_refused_before_anything_is_trained(tmp_path, run):
    assert run("train", *OPTIONS, "--out", tmp_path / "seed-1").status == 0
    outcome = run("train", *OPTIONS, "--seeds", 3, "--out", tmp_path)
    assert outcome.status == 2
    assert "seed-1 already holds a run" in outcome.error
    assert not (tmp_path / "seed-0").exists()
    outcome = run("train", *OPTIONS, "--lr", 0.3, "--seeds", 3, "--resume", "--out", tmp_path)
    assert outcome.status == 2
    assert "seed-1 holds a run with other settings: lr is" in outcome.error
    outcome = run("train", *OPTIONS, "--seeds", 3, "--out", tmp_path / "seed-1")
    assert outcome.status == 2
    assert "already holds a run" in outcome.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", 0], "at least 1"),
        (["--seeds", "x"], "not a whole number"),
        (["--jobs", 2], "add --seeds N"),
    ],
)
def test_wrong_options_are_refused(tmp_path, run, options, message):
    outcome = run("train", *OPTIONS, *options, "--out", tmp_path / "r")
    assert outcome.status == 2
    assert message in outcome.error
    assert not (tmp_path / "r").exists()


def test_resume_without_the_number_of_seeds_asks_for_it(tmp_path, run):
    assert run("train", *OPTIONS, "--out", tmp_path / "seed-0").status == 0
    outcome = run("train", "--resume", "--out", tmp_path)
    assert outcome.status == 2
    assert "runs of 1 seeds: add --seeds N" in outcome.error


LONG = ["--method", "s-sgd", "--data", "digits", "--model", "mlp", "--batch-size", 32]
LONG += ["--epochs", 40, "--seeds", 3, "--jobs", 2, "--device", "cpu"]


def _stopped(spawn, folder, number):
    """Send a signal, as a terminal does to all processes, once the runs are under way."""
    process = spawn("train", *LONG, "--resume", "--out", folder, start_new_session=True)
    before, deadline = _epochs(folder), time.monotonic() + 120
    while _epochs(folder) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def _epochs(folder):
    return [len(path.read_text().splitlines()) for path in sorted(folder.glob("*/history.jsonl"))]


@pytest.mark.slow
def test_stopped_seeds_end_as_undisturbed_ones(tmp_path, spawn, run):
    """Ctrl-C and SIGKILL, then resumed: the same bits."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    status, errors = _stopped(spawn, cut, signal.SIGINT)
    assert status == 1, errors
    lines = errors.splitlines()
    assert lines[-1].startswith("Error: interrupted"), errors
    assert "ssgd-analyze train --resume --seed 0 --seeds 3 --jobs" in lines[-1]
    assert "Traceback" not in errors
    status, errors = _stopped(spawn, cut, signal.SIGKILL)
    assert status == -signal.SIGKILL, "the runs were finished before they could be killed"
    assert "Error" not in errors, errors
    time.sleep(1.5)  # the workers end soon after their parent
    for folder in (cut, whole):
        assert run("train", *LONG, "--resume", "--out", folder).status == 0
    for seed in range(3):
        assert_same_bits(cut / f"seed-{seed}", whole / f"seed-{seed}")


def test_a_killed_worker_is_named_and_the_rest_can_be_resumed(tmp_path, run):
    path = tmp_path / "net.py"
    path.write_text(
        "import os, signal\nfrom pathlib import Path\nfrom torch import nn\n"
        "def make(input_shape, num_outputs):\n"
        "    if Path(__file__).with_name('kill').exists():\n"
        "        Path(__file__).with_name('kill').unlink()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(2, num_outputs))\n"
    )
    (tmp_path / "kill").touch()
    options = ["--method", "sgd", "--data", "two_moons", "--model", f"{path}:make", "--epochs", 1]
    options += ["--device", "cpu", "--seeds", 2, "--jobs", 2, "--out", tmp_path / "runs"]
    outcome = run("train", *options)
    assert outcome.status == 1
    assert "its process was killed" in outcome.err
    assert run("train", *options, "--resume").status == 0
    assert all((tmp_path / "runs" / f"seed-{s}" / "final.safetensors").exists() for s in (0, 1))
