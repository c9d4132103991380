"""A small study from start to end, killed and resumed; its verdict is true to its numbers."""

import json
import time

import numpy as np
import pytest
from matplotlib.figure import Figure

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs import Run
from ssgd_analysis.studies import StudySettings, list_studies, load_study, run_study
from ssgd_analysis.studies.cells import slug
from ssgd_analysis.studies.questions.rivals import study_verdict

TINY = """
summary = "a small one"
focus = "S-SGD"
metrics = ["test_accuracy", "train_loss", "expected:draws=4", "gradients"]
seeds = [0, 1]
budget = 4
landscape_points = 3
landscape_directions = 2
[train]
data = "digits"
model = "mlp"
train_samples = 400
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
    assert spent == [16, 16, 4, 4]  # equal cost
    # though its learning rate is nearer to the other setting's
    assert {(test["group"], test["baseline"]) for test in answer["matched_tests"]} == {
        ("SGD 2×, small", "S-SGD, small"),
        ("SGD 2×, large", "S-SGD, large"),
    }
    assert answer["verdict"].startswith("S-SGD (2 seeds")
    names = {path.name for path in out.iterdir()}
    assert {
        "report.html", "report.md", "table.csv", "result.json", "training.png", "intervals.png",
        "lines.png", "contours-1.png", "contours-2.png",
    } <= names  # fmt: skip
    run_config = Run(out / "runs" / "large" / "s-sgd-seed0").config()
    assert (run_config.lr, run_config.settings["noise_scale"]) == (0.2, 0.3)
    assert run("study", spec, "--out", out).status == 2
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    again = run("study", spec, "--out", out, "--resume", "--jobs", 1, "--json")
    assert again.json == answer
    after = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    assert after == before  # nothing was repeated


def test_a_study_from_python_is_a_record(tmp_path):
    spec = tmp_path / "tiny.toml"
    text = TINY.replace("budget = 4", "budget = 2").replace("points = 3", "points = 0")
    text = text.replace('"expected:draws=4", ', "").replace("samples = 400", "samples = 100")
    spec.write_text(text, encoding="utf-8")
    record = run_study(str(spec), tmp_path / "out", StudySettings(jobs=1, seeds=1))
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record.to_json() == stored
    assert record.verdict == stored["verdict"]
    assert record.files[0] == tmp_path / "out" / "report.html"
    rows = record.rows()
    assert len(rows) == 2 * 3  # arms × metrics; every run of the large batches failed
    assert len(stored["failures"]) == 2
    assert rows[0].items() >= {
        "setting": "small", "arm": "SGD 2×", "metric": "test_accuracy", "n": 1, "low": None,
    }.items()  # fmt: skip
    axes = Figure().subplots()
    record.plot(axes)
    assert axes.get_xlabel() == "test accuracy"
    again = record.save(tmp_path / "copy")
    assert {path.name for path in again} == {path.name for path in record.files}
    copied = json.loads((tmp_path / "copy" / "result.json").read_text())
    assert copied.pop("report") == str(tmp_path / "copy" / "report.html")
    assert copied.items() <= {**stored, "pictures": copied["pictures"]}.items()
    with pytest.raises(InputError, match="already holds a study"):
        run_study(str(spec), tmp_path / "out")


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


@pytest.mark.parametrize("name", [entry["name"] for entry in list_studies()])
@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_embedded_studies_are_sound(name, scale):
    """Every arm can be made everywhere, costs the budget to 3%, and gets the same trials."""
    study = load_study(name, scale)
    assert study.summary
    assert study.tuning is not None
    for setting in study.settings:
        budget = setting.budget or study.budget
        for arm in study.arms:
            config = study.config(setting, arm, 0)
            method = config.method_class
            passes = method.passes_per_step(config.method_settings())
            share = passes / method.minibatches(config.method_settings())
            assert config.epochs * share == pytest.approx(
                budget, rel=0.03 if scale == "full" else 1
            )
            assert study.search(arm), arm.label


def planted_test(group, verdict, metric="test_accuracy"):
    return {"metric": metric, "group": group, "verdict": verdict}


def planted_overall(group, verdict):
    return {
        "group": group,
        "verdict": verdict,
        "why": "",
        **{key: ["expected"] for key in ("by", "counted")},
    }


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("sharper", "count (expected rise), it is flatter than SGD 2× (by expected rise)"),
        ("flatter", "it is sharper than SGD 2× (by expected rise)"),
        ("no difference", "it is no different from SGD 2×"),
        ("not comparable", "it is not comparable with SGD 2×"),
        ("undecided", "it is undecided against SGD 2×"),
    ],
)
def test_the_sentence_speaks_of_the_focus(spec, verdict, words):
    """A rival that is sharper than S-SGD makes S-SGD flatter than the rival."""
    study = load_study(str(spec))
    accuracy = {"test_accuracy": {"mean": 0.951}}
    result = {
        "matched_overall": [
            planted_overall("SGD 2×, small", verdict),
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
    assert study.matched
    small, large = study_verdict(study, result).split(" | ")
    assert words in small
    assert "accuracy (95.1%) is higher than that of SGD 2×" in small
    assert "accuracy (95.1%) is lower than that of SGD 2×" in large
    assert "it is no different from SGD 2×" in large


def test_the_result_is_plain_numbers(tmp_path, run, spec):
    text = TINY.replace("seeds = [0, 1]", "seeds = [0]").replace(
        '"expected', '"lambda_max", "expected'
    )
    spec.write_text(text, encoding="utf-8")
    outcome = run("study", spec, "--out", tmp_path / "out", "--jobs", 1, "--json")
    verdicts = {test["verdict"] for test in outcome.json["tests"]}
    assert verdicts <= {"undecided", "not comparable"}
    assert np.isfinite(outcome.json["groups"][0]["metrics"]["lambda_max"]["mean"])


TUNED = """
question = "each"
focus = "S-SGD"
metrics = ["test_accuracy", "train_loss", "gradients"]
seeds = [0, 1]
budget = 2
matched = false
[train]
data = "digits"
model = "mlp"
batch_size = 200
[tuning]
trials = 3
seeds = [1000]
[tuning.search]
lr = [0.01, 1.0, "log"]
[tiny]
seeds = [0]
budget = 2
train = { data = "standin-cifar10" }
[[arm]]
label = "SGD"
method = "sgd"
[[arm]]
label = "S-SGD"
method = "s-sgd"
search = { noise_scale = [0.05, 1.0, "log"] }
"""


@pytest.fixture
def tuned(tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text(TUNED, encoding="utf-8")
    return path


def relative(out):
    """The result without where it lies."""
    text = (out / "result.json").read_text().replace(str(out), "OUT")
    return json.loads(text)


def test_a_tuned_study_keeps_its_record_and_grows_by_seeds(tmp_path, run, tuned):
    out = tmp_path / "out"
    first = run("study", tuned, "--out", out, "--jobs", 1, "--json")
    assert first.status == 0, first.err
    record = json.loads((out / "tuning.json").read_text())
    assert [len(one["trials"]) for one in record["arms"]] == [3, 3]
    for one in record["arms"]:
        accuracies = [trial["val_accuracy"] for trial in one["trials"]]
        assert accuracies[one["chosen_trial"]] == max(accuracies)
        config = Run(out / "runs" / "all" / f"{slug(one['arm'])}-seed0").config()
        assert config.lr == one["chosen"]["lr"]
        assert config.val == 0
        if one["arm"] == "S-SGD":
            assert config.settings["noise_scale"] == one["chosen"]["noise_scale"]
    assert len((out / "tuning.csv").read_text().splitlines()) == 7
    before = {p: p.stat().st_mtime_ns for p in out.rglob("final.safetensors")}
    assert run("study", tuned, "--out", out, "--seeds", 3).status == 2  # not without --resume
    more = run("study", tuned, "--out", out, "--resume", "--seeds", 3, "--jobs", 1, "--json")
    assert more.json["seeds"] == [0, 1, 2]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    again = run("study", tuned, "--out", out, "--resume", "--jobs", 1, "--json")
    assert again.json == more.json  # the file says two seeds, the folder has three
    refused = run("study", tuned, "--out", out, "--resume", "--seeds", 2)
    assert "has 3 seeds already" in refused.error
    tuned.write_text(TUNED.replace("trials = 3", "trials = 4"), encoding="utf-8")
    assert "other settings" in run("study", tuned, "--out", out, "--resume").error


def test_an_arm_whose_every_trial_fails_is_told(tmp_path, run, tuned):
    text = tuned.read_text(encoding="utf-8")
    text = text.replace("[[arm]]", '[[arm]]\nlabel = "bad"\nmethod = "sgd"\nmomentum = 0.5\n'
        'search = { lr = [1e30, 1e35, "log"] }\n[[arm]]', 1)  # fmt: skip
    tuned.write_text('against = "SGD"\n' + text, encoding="utf-8")
    found = run("study", tuned, "--out", tmp_path / "out", "--jobs", 1, "--json")
    assert found.status == 0, found.err
    assert found.json["failures"] == {"bad": "every tuning trial failed"}
    assert "against bad its accuracy is not measured (no run)" in found.json["verdict"]
    assert found.json["verdict"].endswith("2 runs failed and are left out.")  # both seeds


def test_tuning_never_touches_test(tmp_path, run, tuned):
    """The same choice where every test label is another one."""
    chosen = []
    for shift in (0, 1):
        data = tmp_path / f"data{shift}.py"
        data.write_text(
            f"""
from ssgd_analysis.data import load_data
def made():
    data = load_data("digits")
    test = (data.test.inputs, (data.test.targets + {shift}) % 10)
    return (data.train.inputs, data.train.targets), test
""",
            encoding="utf-8",
        )
        tuned.write_text(TUNED.replace('"digits"', f'"{data}:made"'), encoding="utf-8")
        out = tmp_path / f"out{shift}"
        assert run("study", tuned, "--out", out, "--jobs", 1).status == 0
        record = json.loads((out / "tuning.json").read_text())
        chosen.append([(one["trials"], one["chosen"]) for one in record["arms"]])
    assert chosen[0] == chosen[1]


def test_tiny_says_that_it_is_a_stand_in(tmp_path, run, tuned):
    out = tmp_path / "out"
    outcome = run("study", tuned, "--out", out, "--scale", "tiny", "--jobs", 1, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["verdict"].startswith("STAND-IN")
    assert "STAND-IN" in (out / "report.md").read_text()
    assert "STAND-IN" in (out / "report.html").read_text()
    assert Run(out / "runs" / "all" / "sgd-seed0").config().data == "standin-cifar10"
    assert run("study", tuned, "--out", out, "--resume").status == 2  # another scale


def test_a_dry_run_plans_and_leaves_nothing(tmp_path, run, tuned):
    out = tmp_path / "out"
    outcome = run("study", tuned, "--out", out, "--dry-run", "--json", "--jobs", 2)
    assert outcome.status == 0, outcome.err
    assert not out.exists()
    steps = 2 * (1297 // 200) + 2 * 2 * 6 // 2  # SGD 2 epochs, S-SGD 1 epoch of two passes
    tuning = 2 * (1038 // 200) + 2 * (1038 // 200)
    assert outcome.json["passes"] == 2 * steps + 3 * tuning
    assert (outcome.json["final_runs"], outcome.json["tuning_trials"]) == (4, 6)
    assert "10 runs, " in outcome.err


@pytest.mark.slow
def test_a_tuned_study_killed_at_any_moment_gives_the_same_result(tmp_path, run, spawn, tuned):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ["--jobs", 1]
    assert run("study", tuned, "--out", whole, *options).status == 0
    for delay in (2.5, 3.5, 4.5):
        process = spawn("study", tuned, "--out", killed, "--resume", *options)
        time.sleep(delay)
        process.kill()
        process.communicate()
    assert run("study", tuned, "--out", killed, "--resume", *options).status == 0
    a, b = relative(whole), relative(killed)
    assert a == b
