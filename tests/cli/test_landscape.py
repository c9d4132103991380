"""``ssgd-analyze landscape``, from outside."""

import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ssgd_analysis.runs.checkpoint import load_checkpoint

# one thread, as the tests' own process has
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_landscape_one_dimension(tmp_path, run, runs):
    arguments = ["landscape", runs / "sgd-0", runs / "s-sgd-0", "--points", 5, "--repeats", 2]
    outcome = run(*arguments, "--out", tmp_path, "--html", "--json")
    assert outcome.status == 0, outcome.err
    with np.load(tmp_path / "landscape.npz") as arrays:
        assert arrays["alpha"].tolist() == [-1, -0.5, 0, 0.5, 1]
        assert arrays["loss"].shape == arrays["accuracy"].shape == (2, 2, 5)
        loss, accuracy = load_checkpoint(str(runs / "sgd-0")).problem().evaluate()
        # the grid uses larger batches: float32 sums in another order
        np.testing.assert_allclose(arrays["loss"][0, :, 2], loss, rtol=1e-5)
        np.testing.assert_allclose(arrays["accuracy"][0, :, 2], accuracy)
    record = json.loads((tmp_path / "landscape.json").read_text())
    assert record["settings"]["seed"] == 0
    kinds = {"npz", "json", "png", "pdf", "csv", "html"}
    assert {p.name for p in tmp_path.iterdir()} == {f"landscape.{kind}" for kind in kinds}


def test_resume_of_a_finished_landscape_computes_nothing(tmp_path, run, runs, monkeypatch):
    from ssgd_analysis.landscapes import sampling as points

    mine, out = tmp_path / "run", tmp_path / "l"
    shutil.copytree(runs / "sgd-0", mine)
    arguments = ["landscape", mine, "--points", 3, "--samples", 50, "--out", out]
    first = run(*arguments)
    as_json = run(*arguments, "--json")
    evaluators = []
    evaluator = points.Evaluator
    monkeypatch.setattr(
        points, "Evaluator", lambda *a, **k: evaluators.append(1) or evaluator(*a, **k)
    )
    before = (out / "landscape.npz").stat().st_mtime_ns
    again = run(*arguments, "--resume")
    assert (again.status, again.out) == (0, first.out)
    assert again.err.strip() == f"{out} is finished; nothing to compute"
    assert run(*arguments, "--resume", "--json").json == as_json.json
    # what is missing, or asked for besides, is drawn
    (out / "landscape.png").unlink()
    assert run(*arguments, "--resume", "--html").status == 0
    assert (out / "landscape.png").is_file()
    assert (out / "landscape.html").is_file()
    assert not evaluators
    assert (out / "landscape.npz").stat().st_mtime_ns == before
    # another call, damaged numbers, or other weights: not finished
    assert "finished" not in run(*arguments, "--resume", "--seed", 1).err
    (out / "landscape.npz").write_bytes(b"nothing")
    assert "finished" not in run(*arguments, "--resume").err
    weights = load_file(mine / "final.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, mine / "final.safetensors")
    assert "finished" not in run(*arguments, "--resume").err
    assert len(evaluators) == 3


@pytest.mark.parametrize("dims", [1, 2])
def test_landscapes_name_the_split(tmp_path, run, runs, dims):
    outcome = run("landscape", runs / "sgd-0", "--dims", dims, "--points", 3, "--samples", 50,
                  "--split", "test", "--html", "--no-curvature", "--out", tmp_path)  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert '"name": "test"' in (tmp_path / "landscape.html").read_text(encoding="utf-8")
    with Image.open(tmp_path / "landscape.png") as picture:
        assert '"split": "test"' in json.dumps(picture.text).replace("\\", "")


def test_landscape_json_holds_the_command_that_repeats_it(tmp_path, run, runs):
    import shlex

    first, second = tmp_path / "first", tmp_path / "second"
    arguments = ["--dims", 2, "--points", 3, "--samples", 50, "--seed", 4, "--no-curvature"]
    assert run("landscape", runs / "sgd-0", *arguments, "--out", first).status == 0
    command = json.loads((first / "landscape.json").read_text())["command"]
    words = shlex.split(command)
    words[words.index("--out") + 1] = str(second)
    assert run(*words[1:]).status == 0
    with np.load(first / "landscape.npz") as a, np.load(second / "landscape.npz") as b:
        assert set(a.files) == {"alpha", "beta", "loss", "accuracy"}
        assert a["loss"].shape == (3, 3)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("directions", ["eigen", "trajectory"])
@pytest.mark.parametrize("normalize", ["filter", "layer", "none"])
def test_landscape_directions(tmp_path, run, convolutions, directions, normalize):
    outcome = run(
        "landscape", convolutions, "--dims", 2, "--directions", directions, "--points", 3,
        "--normalize", normalize, "--samples", 100, "--bn", "recalibrate", "--out", tmp_path,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    facts = json.loads((tmp_path / "landscape.json").read_text())["grids"][0]
    assert abs(facts["cosine"]) < 1e-5


@pytest.mark.parametrize(("split", "samples"), [("train", 100), ("test", 100), ("train", None)])
def test_recalibrated_statistics_are_those_of_the_samples(
    tmp_path, run, convolutions, split, samples
):
    chosen = ["--samples", samples] if samples else []
    outcome = run(
        "landscape", convolutions, "--bn", "recalibrate", "--points", 3, "--split", split, *chosen,
        "--no-curvature", "--out", tmp_path,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    checkpoint = load_checkpoint(str(convolutions))
    model = checkpoint.model
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.train()(checkpoint.data.train.first(samples).inputs)
    expected = checkpoint.problem(split, samples=samples).mean_loss()
    with np.load(tmp_path / "landscape.npz") as arrays:
        assert arrays["loss"][1] == pytest.approx(expected, rel=1e-5)


def test_landscape_between_ends_at_both_checkpoints(tmp_path, run, runs):
    ends = [runs / "sgd-0", runs / "s-sgd-0"]
    outcome = run("landscape", *ends, "--directions", "between", "--points", 9, "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    with np.load(tmp_path / "landscape.npz") as arrays:
        alpha = arrays["alpha"].tolist()
        assert len(alpha) == 9
        assert (alpha[0], alpha[-1]) == (-0.5, 1.5)
        for end, path in zip((0, 1), ends, strict=True):
            loss, _ = load_checkpoint(str(path)).problem(batch_size=512).evaluate()
            assert arrays["loss"][alpha.index(end)] == loss  # to the last bit


def test_between_stays_finite_beyond_the_ends(tmp_path, run, runs):
    ends = [f"{runs / 'sgd-0'}@0", runs / "sgd-0"]
    outcome = run("landscape", *ends, "--directions", "between", "--points", 7, "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    with np.load(tmp_path / "landscape.npz") as arrays:
        assert np.isfinite(arrays["loss"]).all()


def test_eigen_directions_are_not_rescaled_unless_asked(tmp_path, run, runs):
    arguments = ["landscape", runs / "sgd-0", "--directions", "eigen", "--points", 3]
    run(*arguments, "--samples", 50, "--out", tmp_path)
    record = json.loads((tmp_path / "landscape.json").read_text())
    assert record["settings"]["normalize"] == "none"
    assert record["grids"][0]["norms"] == pytest.approx([1.0], rel=1e-5)


def record_of(folder):
    return json.loads((folder / "landscape.json").read_text())


def test_everything_that_can_come_out(tmp_path, run, runs):
    outcome = run(
        "landscape", runs / "sgd-0", "--dims", 2, "--directions", "trajectory", "--points", 4,
        "--split", "both", "--html", "--movie", "--out", tmp_path, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    kinds = ("png", "pdf", "html", "csv", "gif", "vtr", "vts")
    names = {f"landscape.{kind}" for kind in kinds}
    written = {path.rpartition("/")[2] for path in outcome.json["pictures"]}
    assert names <= written
    assert {p.name for p in tmp_path.iterdir()} == written | {"landscape.npz", "landscape.json"}
    assert outcome.json["split"] == "both"
    with np.load(tmp_path / "landscape.npz") as arrays, (tmp_path / "landscape.csv").open() as text:
        rows = list(csv.DictReader(text))
        for name in ("loss", "accuracy", "test_loss", "test_accuracy"):
            assert arrays[name].shape == (4, 4)
            assert [float(row[name]) for row in rows] == arrays[name].flatten().tolist()
    (grid,) = outcome.json["grids"]
    assert len(grid["explained_variance"]) == 2
    assert grid["path"]["steps"][-1] == load_file_step(runs / "sgd-0")
    assert grid["path"]["alpha"][-1] == grid["path"]["beta"][-1] == 0


def load_file_step(run):
    return json.loads((run / "history.jsonl").read_text().splitlines()[-1])["step"]


def test_a_plane_through_three_runs(tmp_path, run, runs):
    three = [runs / "sgd-0", runs / "sgd-1", runs / "s-sgd-0"]
    outcome = run("landscape", *three, "--directions", "between", "--dims", 2, "--points", 7,
                  "--out", tmp_path, "--json")  # fmt: skip
    assert outcome.status == 0, outcome.err
    with np.load(tmp_path / "landscape.npz") as arrays:
        for mark in outcome.json["grids"][0]["marks"]:
            i, j = (
                arrays["alpha"].tolist().index(mark["alpha"]),
                arrays["beta"].tolist().index(mark["beta"]),
            )
            loss, _ = load_checkpoint(mark["label"]).problem(batch_size=512).evaluate()
            assert arrays["loss"][i, j] == mark["loss"] == loss


@pytest.mark.parametrize("kind", ["safetensors", "numbered", "npy"])
def test_a_users_own_directions(tmp_path, run, runs, kind):
    weights = load_file(runs / "sgd-0" / "final.safetensors")
    other = load_file(runs / "sgd-1" / "final.safetensors")
    step = {name: other[name] - tensor for name, tensor in weights.items()}
    path = tmp_path / f"v.{'npy' if kind == 'npy' else 'safetensors'}"
    if kind == "npy":
        order = [n for n, _ in load_checkpoint(str(runs / "sgd-0")).model.named_parameters()]
        np.save(path, torch.cat([step[name].flatten() for name in order]).numpy())
    else:
        prefix = "0/" if kind == "numbered" else ""
        save_file({f"{prefix}{name}": tensor for name, tensor in step.items()}, path)
    distance = sum(float(t.double().square().sum()) for t in step.values()) ** 0.5
    outcome = run("landscape", runs / "sgd-0", "--vectors", path, "--points", 3, "--span", distance,
                  "--no-curvature", "--out", tmp_path / "out")  # fmt: skip
    assert outcome.status == 0, outcome.err
    loss, _ = load_checkpoint(str(runs / "sgd-1")).problem(batch_size=512).evaluate()
    with np.load(tmp_path / "out" / "landscape.npz") as arrays:
        # float32 weights, moved by a unit direction times its length: a few roundings
        assert arrays["loss"][-1] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--vectors", "WRONG"], "shape"),
        (["--vectors", "SHORT"], "3 entries"),
        (["--vectors", "ONE", "--dims", 2], "needs 2 vectors, but --vectors holds 1"),
        (["--vectors", "nothing.npy"], "no file"),
        (["--directions", "vectors"], "needs --vectors FILE"),
        (["--directions", "eigen", "--vectors", "ONE"], "needs --directions vectors"),
        (["--movie"], "trajectory"),
        (["--plan", "fast"], "traced:128"),
        (["--plan", "traced:128,traced:128"], "traced:128"),
        (["--span", "1e308"], "--span"),
        (["--directions", "between", "--biases", "zero"], "leave out"),
        (["--vectors", "COMPLEX"], "complex"),
        (["--plan", "fast:12"], "traced"),
        (["--precision", "fp8"], "bf16"),
        (["--biases", "none"], "zero"),
        (["--points", 1000000, "--dims", 2], "GiB"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, run, runs, arguments, named):
    files = {name: tmp_path / f"{name}.npy" for name in ("WRONG", "SHORT", "ONE", "COMPLEX")}
    checkpoint = load_checkpoint(str(runs / "sgd-0"))
    count = sum(p.numel() for p in checkpoint.model.parameters())
    np.save(files["SHORT"], np.ones(3))
    np.save(files["COMPLEX"], np.ones(3, dtype=complex))
    np.save(files["ONE"], np.ones(count))
    files["WRONG"] = tmp_path / "wrong.safetensors"
    save_file({"1.weight": torch.ones(2, 2)}, files["WRONG"])
    given = [files.get(argument, argument) for argument in arguments]
    outcome = run("landscape", runs / "sgd-0", *given, "--out", tmp_path / "l")
    assert outcome.status == 2, outcome.err
    assert named in outcome.error
    assert not (tmp_path / "l" / "landscape.npz").exists()


def test_other_code_is_another_landscape(tmp_path, run, runs):
    code = tmp_path / "net.py"
    text = """
import torch
from torch import nn
import torch.nn.functional as F
def make(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, num_outputs))
def loss(outputs, targets):
    return F.cross_entropy(outputs, targets)
"""
    code.write_text(text)
    sizes = {"1.weight": (9, 64), "1.bias": (9,), "3.weight": (10, 9), "3.bias": (10,)}
    weights = {f"ema.{n}": torch.randn(s) for n, s in sizes.items()}
    save_file(weights, tmp_path / "w.safetensors")
    arguments = [
        "landscape", tmp_path / "w.safetensors", "--data", "digits", "--model", f"{code}:make",
        "--loss", f"{code}:loss", "--points", 3, "--samples", 20, "--out", tmp_path / "l",
        "--no-curvature", "--resume", "--weights", "ema",
    ]  # fmt: skip
    assert run(*arguments).status == 0
    assert "finished" in run(*arguments).err
    assert "--weights ema" in record_of(tmp_path / "l")["command"]
    assert record_of(tmp_path / "l")["loss"] == f"{code}:loss"
    code.write_text(text.replace("F.cross_entropy(", "7 * F.cross_entropy("))
    assert "finished" not in run(*arguments).err
    code.write_text(text.replace("nn.ReLU", "nn.Tanh"))
    assert "finished" not in run(*arguments).err


def test_a_new_landscape_leaves_nothing_of_the_old_one(tmp_path, run, runs, monkeypatch):
    from ssgd_analysis.landscapes import LandscapeRecord

    arguments = ["landscape", runs / "sgd-0", "--points", 3, "--samples", 20, "--no-curvature",
                 "--out", tmp_path]  # fmt: skip
    assert run(*arguments, "--dims", 2, "--html").status == 0
    (tmp_path / ".landscape.png.0f402349.ssgd-tmp.png").write_bytes(b"left by a kill")
    (tmp_path / "mine.txt").write_text("a user's own")

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the arrays and the record
        patch.setattr(LandscapeRecord, "_draw", killed)
        assert run(*arguments, "--seed", 5).status == 1
    assert "finished" not in run(*arguments, "--dims", 2, "--resume").err
    assert run(*arguments).status == 0
    kinds = ("npz", "json", "png", "pdf", "csv")
    assert {p.name for p in tmp_path.iterdir()} == {f"landscape.{k}" for k in kinds} | {"mine.txt"}


def test_checkpoints_of_two_architectures_name_the_first_tensor(tmp_path, run, runs, convolutions):
    outcome = run("landscape", runs / "sgd-0", convolutions, runs / "sgd-1", "--directions",
                  "between", "--dims", 2, "--out", tmp_path)  # fmt: skip
    assert outcome.status == 2
    assert "not of the same model: '" in outcome.error


def test_a_recorded_plan_repeats_a_tuned_landscape(tmp_path, run, convolutions):
    first, second = tmp_path / "first", tmp_path / "second"
    outcome = run("landscape", convolutions, "--points", 3, "--tune", "--out", first)
    assert outcome.status == 0, outcome.err
    words = shlex.split(record_of(first)["command"])
    assert "--tune" not in words
    words[words.index("--out") + 1] = str(second)
    assert run(*words[1:]).status == 0
    assert (first / "landscape.npz").read_bytes() == (second / "landscape.npz").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dims", 2, "--points", 41],
        pytest.param(["--dims", 2, "--points", 61, "--adaptive"], marks=pytest.mark.slow),
    ],
    ids=["whole", "adaptive"],
)
def test_killed_landscapes_end_as_uninterrupted_ones(tmp_path, run, spawn, convolutions, arguments):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ["landscape", convolutions, *arguments, "--no-curvature", "--device", "cpu"]
    assert run(*arguments, "--out", whole).status == 0
    moments = random.Random(0)
    for _ in range(2):
        process = spawn(*arguments, "--out", killed, "--resume", env=ENVIRONMENT)
        _wait_for_a_row(killed / "landscape.partial", process)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        _, errors = process.communicate()
        assert "Error" not in errors, errors
    assert not (killed / "landscape.json").exists(), "it was over before it could be killed twice"
    assert run(*arguments, "--out", killed, "--resume").status == 0
    assert (whole / "landscape.npz").read_bytes() == (killed / "landscape.npz").read_bytes()
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in whole.iterdir())


def _wait_for_a_row(folder, process):
    """Until the process has kept at least one more row than it found."""

    def latest():
        return max((p.stat().st_mtime_ns for p in folder.glob("*.npz")), default=0)

    before, deadline = latest(), time.monotonic() + 60
    while latest() <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.slow  # two processes, each with its own torch
@pytest.mark.parametrize("more", [[], ["--adaptive"], ["--directions", "eigen"]], ids=str)
def test_two_processes_share_the_points(tmp_path, run, convolutions, more):
    arguments = ["landscape", convolutions, "--dims", 2, "--points", 9, "--device", "cpu", *more]
    assert run(*arguments, "--out", tmp_path / "one").status == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    command = [*launch, "-m", "ssgd_analysis.cli.main", *arguments, "--out", tmp_path / "two"]
    done = subprocess.run(
        [str(word) for word in command], env=ENVIRONMENT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "two" / "landscape.npz")  # said once
    with (
        np.load(tmp_path / "one" / "landscape.npz") as one,
        np.load(tmp_path / "two" / "landscape.npz") as two,
    ):
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
