"""kill -9 at random moments, then --resume: the rest is bit-identical."""

import os
import random
import time
from contextlib import contextmanager

import pytest
import torch
from readings import READINGS
from safetensors.torch import load_file

import ssgd_analysis.runs.folder as run_module
from ssgd_analysis.errors import WorkError
from ssgd_analysis.methods import METHODS
from ssgd_analysis.progress import Silent
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.runs.tensors import read_tree
from ssgd_analysis.training import loop, train

OPTIONS = [
    "--data", "digits", "--model", "cnn", "--label-noise", 0.2, "--epochs", 12, "--batch-size", 100,
    "--schedule", "cosine", "--warmup", 1, "--save-every", 3, "--seed", 5, "--device", "cpu",
]  # fmt: skip


def without_time(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def assert_same_run(a: Run, b: Run):
    assert without_time(a.history()) == without_time(b.history())
    assert [record["epoch"] for record in a.history()] == list(range(1, 13))
    files = [path.relative_to(a.folder) for path in a.folder.rglob("*.safetensors")]
    assert sorted(files) == sorted(p.relative_to(b.folder) for p in b.folder.rglob("*.safetensors"))
    for file in files:
        mine, other = load_file(a.folder / file), load_file(b.folder / file)
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, other[name]), (file, name)
    states = [read_tree(run.folder / "state.safetensors") for run in (a, b)]
    for key in ("epoch", "step", "passes"):
        assert states[0][key] == states[1][key]
    assert not list(a.folder.rglob("*.tmp*"))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("s-sgd", []),
        ("sam", []),
        pytest.param(
            "s-sgd+ema",
            ["--set", "ema_decay=0.99", "--set", "noise_scale=0.2"],
            marks=pytest.mark.slow,
        ),
        pytest.param("looksam+lookahead+swa", ["--set", "swa_start=0.2"], marks=pytest.mark.slow),
    ],
)
def test_killed_runs_end_as_uninterrupted_ones(tmp_path, spawn, run, method, settings):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ["train", "--method", method, *settings, *OPTIONS]
    assert run(*arguments, "--out", whole).status == 0
    moments = random.Random(method)
    environment = {"OMP_NUM_THREADS": "1"}  # as many threads as the uninterrupted run
    kills = 0
    while not Run(killed).finished and kills < 2:
        process = spawn(*arguments, "--out", killed, "--resume", env=_environment(environment))
        _wait_for_some_work(killed, process)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        _, errors = process.communicate()
        assert "Error" not in errors, errors
        kills += 1
    assert kills == 2, "the run was over before it could be killed twice"
    outcome = run("train", "--out", killed, "--resume", "--json")
    assert outcome.status == 0, outcome.err
    assert_same_run(Run(killed), Run(whole))


def _environment(extra):
    return {**os.environ, **extra}


def _wait_for_some_work(folder, process):
    """Until the process has trained at least one more epoch than it found."""
    history = folder / "history.jsonl"

    def lines():
        return len(history.read_text().splitlines()) if history.is_file() else 0

    before, deadline = lines(), time.monotonic() + 300  # a busy machine starts slowly
    while lines() <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


@contextmanager
def killed_in_epoch(monkeypatch, epoch):
    """A run inside is interrupted between its history and its state of this epoch."""
    save_tree = run_module.save_tree

    def save(path, tree):
        if tree["epoch"] == epoch:
            raise KeyboardInterrupt
        save_tree(path, tree)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_SECONDS", 0.0)
        patch.setattr(run_module, "save_tree", save)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_kill_between_history_and_state_repeats_no_line(tmp_path, monkeypatch):
    config = TrainConfig(method="sgd", data="two_moons", model="mlp", epochs=3, batch_size=50)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    train(config, whole.folder)
    with killed_in_epoch(monkeypatch, 2):
        train(config, cut.folder)
    assert len(cut.history()) == 2
    assert cut.load_state()["epoch"] == 1
    train(config, cut.folder, resume=True)
    assert without_time(cut.history()) == without_time(whole.history())
    assert torch.equal(load_file(cut.final)["1.weight"], load_file(whole.final)["1.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_to_the_same_bits(tmp_path, monkeypatch, method):
    """Its own state too: killed in the second of two epochs."""
    size = max(50 // READINGS[method].minibatches, 1)
    config = TrainConfig(method=method, data="two_moons", model="mlp", epochs=2, batch_size=size)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    train(config, whole.folder)
    with killed_in_epoch(monkeypatch, 2):
        train(config, cut.folder)
    train(config, cut.folder, resume=True)
    mine, other = load_file(cut.final), load_file(whole.final)
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert without_time(cut.history()) == without_time(whole.history())
    states = [read_tree(run.folder / "state.safetensors") for run in (cut, whole)]
    assert states[0]["passes"] == states[1]["passes"]


@pytest.mark.parametrize("pause", [0.0, 1e9])
def test_nothing_depends_on_what_was_written_when(tmp_path, monkeypatch, pause):
    """Killed in epoch 4, of which the state on disk knows all three before, or none."""
    settings = {"method": "s-sgd+ema", "data": "two_moons", "model": "mlp", "val": 0.2}
    config = TrainConfig(**settings, epochs=6, batch_size=50, early_stop=5)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    train(config, whole.folder)
    assert len(whole.history()) == 6
    steps = []

    class Killed(Silent):
        def advance(self, count=1, note=""):
            steps.append(count)
            if sum(steps) == 3 * 8 + 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_SECONDS", pause)
    with pytest.raises(KeyboardInterrupt):
        train(config, cut.folder, progress=Killed())
    known = 0 if pause else 3
    assert cut.load_state()["epoch"] == known
    assert len(cut.history()) == known
    train(config, cut.folder, resume=True)
    assert without_time(cut.history()) == without_time(whole.history())
    for file in ("final.safetensors", "state.safetensors"):
        mine, other = load_file(cut.folder / file), load_file(whole.folder / file)
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in other)


def test_what_is_kept_is_written_with_its_epoch(tmp_path, monkeypatch):
    """State and history at the start, the end, every checkpoint and measurement; no more."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 1e9)
    epochs, save_epoch = [], Run.save_epoch

    def noted(self, history, state, tracked):
        epochs.append((len(history), state["epoch"]))
        save_epoch(self, history, state, tracked)

    monkeypatch.setattr(Run, "save_epoch", noted)
    chosen = {"method": "sgd", "data": "two_moons", "model": "mlp", "batch_size": 100}
    train(TrainConfig(**chosen, epochs=7, save_every=3), tmp_path / "kept")
    assert epochs == [(n, n) for n in (0, 3, 6, 7)]
    epochs.clear()
    tracked = {"track": ["sharpness"], "track_every": 4, "track_samples": 50}
    train(TrainConfig(**chosen, epochs=5, **tracked), tmp_path / "tracked")
    assert epochs == [(n, n) for n in (0, 4, 5)]


def test_a_diverged_run_keeps_its_history_and_last_good_weights(tmp_path, monkeypatch):
    chosen = {"method": "sgd", "data": "two_moons", "model": "mlp", "batch_size": 100, "epochs": 9}
    config, found = TrainConfig(**chosen), []
    for pause in (0.0, 1e9):
        run, calls = Run(tmp_path / str(pause)), []
        learning_rate = loop.learning_rate

        def later(*arguments, calls=calls, rate=learning_rate):
            calls.append(1)
            return 1e30 if len(calls) > 17 else rate(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "SAVE_SECONDS", pause)
            patch.setattr(loop, "learning_rate", later)
            with pytest.raises(WorkError, match="last good weights"):
                train(config, run.folder)
        assert len(run.history()) == 3
        (kept,) = (run.folder / "checkpoints").iterdir()
        assert kept.name == "step-00000015.safetensors"
        found.append(load_file(kept))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_kill_before_the_first_state_starts_anew(tmp_path):
    config = TrainConfig(method="sgd", data="two_moons", model="mlp", epochs=1, batch_size=50)
    run = Run(tmp_path / "run")
    run.begin(config)
    train(config, run.folder, resume=True)
    assert run.finished


def test_resume_of_a_finished_run_says_so(tmp_path, run):
    arguments = ["--method", "sgd", "--data", "two_moons", "--model", "mlp", "--epochs", 1]
    assert run("train", *arguments, "--out", tmp_path / "r").status == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*")}
    again = run("train", "--out", tmp_path / "r", "--resume")
    assert again.status == 0
    assert "finished" in again.err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*")} == before


def test_resume_with_other_settings_is_refused(tmp_path, run):
    arguments = ["--data", "two_moons", "--model", "mlp", "--epochs", 1, "--out", tmp_path / "r"]
    assert run("train", "--method", "sgd", *arguments).status == 0
    other = run("train", "--method", "sgd", "--lr", 0.3, *arguments, "--resume")
    assert other.status == 2
    assert "lr is 0.1 there, 0.3 here" in other.error
