"""A small study from start to end, killed and resumed; its verdict is true to its numbers."""

import json
import time

import numpy as np
import pytest

from ssgd_analysis.studies import load_study
from ssgd_analysis.studies.verdict import study_verdict
from ssgd_analysis.training import Run

TINY = """
summary = "a small one"
focus = "S-SGD"
metrics = ["test_accuracy", "train_loss", "lambda_max", "expected:draws=4", "gradients"]
seeds = [0, 1]
landscape_points = 3
landscape_directions = 2
[train]
data = "digits"
model = "mlp"
epochs = 2
save_every = 1
[[setting]]
name = "small"
batch_size = 100
[[setting]]
name = "large"
batch_size = 400
[setting.arm]
"S-SGD" = { lr = 0.2, set = { noise_scale = 0.3 } }
[[arm]]
label = "SGD 2×"
method = "sgd"
epochs_factor = 2
[[arm]]
label = "S-SGD"
method = "s-sgd"
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


def test_a_study_answers(tmp_path, run, spec):
    out = tmp_path / "out"
    outcome = run("study", spec, "--out", out, "--jobs", 1, "--json")
    assert outcome.status == 0, outcome.err
    answer = outcome.json
    names = ["SGD 2×, small", "S-SGD, small", "SGD 2×, large", "S-SGD, large"]
    assert [group["name"] for group in answer["groups"]] == names
    spent = [group["metrics"]["gradients"]["mean"] for group in answer["groups"]]
    assert spent == [48, 48, 12, 12]  # equal cost
    # though its learning rate is nearer to the other setting's
    assert {(test["group"], test["baseline"]) for test in answer["matched_tests"]} == {
        ("SGD 2×, small", "S-SGD, small"),
        ("SGD 2×, large", "S-SGD, large"),
    }
    assert answer["verdict"].startswith("S-SGD (2 seeds")
    names = {path.name for path in out.iterdir()}
    assert {
        "report.html", "table.csv", "result.json", "training.png", "intervals.png", "lines.png",
        "contours-1.png", "contours-2.png",
    } <= names  # fmt: skip
    run_config = Run(out / "runs" / "large" / "s-sgd-seed0").config()
    assert (run_config.lr, run_config.settings["noise_scale"]) == (0.2, 0.3)
    assert run("study", spec, "--out", out).status == 2
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    again = run("study", spec, "--out", out, "--resume", "--jobs", 1, "--json")
    assert again.json == answer
    after = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    assert after == before  # nothing was repeated


@pytest.mark.slow
def test_a_killed_study_resumes_to_the_same_numbers(tmp_path, run, spawn, spec):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("study", spec, "--out", whole, "--jobs", 1).status == 0
    for delay in (0.1, 0.8):
        process = spawn("study", spec, "--out", killed, "--resume", "--jobs", 2)
        deadline = time.monotonic() + 60
        while not list(killed.rglob("history.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(delay)
        process.kill()
        process.communicate()  # returns once its workers, who hold the pipe, are gone too
    assert run("study", spec, "--out", killed, "--resume", "--jobs", 1).status == 0
    a, b = (json.loads((out / "result.json").read_text()) for out in (whole, killed))
    assert [g["metrics"] for g in a["groups"]] == [g["metrics"] for g in b["groups"]]
    assert [t["p"] for t in a["matched_tests"]] == [t["p"] for t in b["matched_tests"]]


def test_diverged_runs_are_counted_not_dropped_silently(tmp_path, run, spec):
    text = TINY.replace("[[arm]]", '[[arm]]\nlabel = "bad"\nmethod = "sgd"\nlr = 1e30\n[[arm]]', 1)
    text = text.replace("landscape_points = 3", "landscape_points = 0")
    spec.write_text(text, encoding="utf-8")
    outcome = run("study", spec, "--out", tmp_path / "out", "--jobs", 1, "--json")
    assert outcome.status == 0, outcome.err
    assert len(outcome.json["failures"]) == 4
    assert "4 runs failed" in outcome.json["verdict"]


@pytest.mark.parametrize("name", ["digits", "digits-tuning"])
def test_embedded_studies_are_sound(name):
    study = load_study(name)
    for setting in study.settings:
        for arm in study.arms:
            config = study.config(setting, arm, 0, device="cpu", data_dir=None)
            assert config.data == "digits"
    if name == "digits":  # the equal-cost arm costs what S-SGD costs
        arms = {arm.label: arm for arm in study.arms}
        assert arms["SGD 2×"].epochs_factor == 2
        assert not set(study.seeds) & set(load_study("digits-tuning").seeds)


def planted_test(group, verdict, metric="test_accuracy"):
    return {"metric": metric, "group": group, "verdict": verdict}


def planted_overall(group, verdict, why=""):
    return {
        "group": group,
        "verdict": verdict,
        "why": why,
        **{key: ["expected"] for key in ("by", "counted")},
    }


@pytest.mark.parametrize(
    ("verdict", "why", "words"),
    [
        ("sharper", "", "(expected rise count) it is flatter than SGD 2× (by expected rise)"),
        ("flatter", "", "it is sharper than SGD 2× (by expected rise)"),
        ("no difference", "", "it is no different from SGD 2×"),
        ("not comparable", "", "it is not comparable with SGD 2×"),
        ("not comparable", "undecided by expected", "it is undecided against SGD 2×"),
    ],
)
def test_the_sentence_speaks_of_the_focus(spec, verdict, why, words):
    """A rival that is sharper than S-SGD makes S-SGD flatter than the rival."""
    study = load_study(str(spec))
    accuracy = {"test_accuracy": {"mean": 0.951}}
    result = {
        "matched_overall": [
            planted_overall("SGD 2×, small", verdict, why),
            planted_overall("SGD 2×, large", "no difference"),
        ],
        "rule": {"level": 0.05, "margin": 0.1},
        "outcomes": [
            planted_test("SGD 2×, small", "lower"),
            planted_test("SGD 2×, large", "higher"),
            planted_test("SGD 2×, large", "lower", "test_loss"),
        ],
        "groups": [{"name": f"S-SGD, {s}", "metrics": accuracy} for s in ("small", "large")],
        "failures": {},
    }
    small, large = study_verdict(study, result).split(" | ")
    assert words in small
    assert "accuracy (95.1%) is higher than SGD 2×" in small
    assert "accuracy (95.1%) is lower than SGD 2×" in large
    assert "it is no different from SGD 2×" in large


def test_the_result_is_plain_numbers(tmp_path, run, spec):
    spec.write_text(TINY.replace("seeds = [0, 1]", "seeds = [0]"), encoding="utf-8")
    outcome = run("study", spec, "--out", tmp_path / "out", "--jobs", 1, "--json")
    assert all(test["verdict"] == "not comparable" for test in outcome.json["tests"])
    assert np.isfinite(outcome.json["groups"][0]["metrics"]["lambda_max"]["mean"])
