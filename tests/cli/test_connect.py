"""``ssgd-analyze connect`` on digits: its answer, its files, its resume, its refusals."""

import csv
import io
import json
import time

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.runs.checkpoint import load_checkpoint
from ssgd_analysis.training import train

KEYS = ("entry",)  # of other settings, and with other seconds
QUICK = ["--points", 5, "--epochs", 1, "--samples", 100, "--device", "cpu"]
ALL = [part for kind in ("line", "matched", "bezier", "chain") for part in ("--path", kind)]


def trained(folder, model: str, seed: int, **options):
    where = folder / f"{model}-{seed}"
    train(
        TrainConfig(method="sgd", data="digits", model=model, epochs=1, seed=seed, **options),
        where,
    )
    return where


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ends")
    return [trained(folder, "mlp", seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convolutions")
    return [trained(folder, "cnn", seed) for seed in (0, 1)]


def test_answer_and_files(tmp_path, run, ends):
    arguments = ["connect", *ends, *ALL, *QUICK, "--save-weights", "--out", tmp_path / "c"]
    outcome = run(*arguments, "--json")
    assert outcome.status == 0, outcome.err
    answer = outcome.json
    assert answer == json.loads((tmp_path / "c" / "connect.json").read_text())
    assert answer["checkpoints"] == [str(end) for end in ends]
    assert answer["notes"] == []
    assert answer["n_samples"] == {"train": 100, "test": 100}
    paths = {found["path"]: found for found in answer["paths"]}
    assert list(paths) == ["line", "matched", "bezier", "chain"]
    own = [load_checkpoint(str(end)).problem("test", samples=100, batch_size=12) for end in ends]
    for kind, found in paths.items():
        height = found["barrier"]["test"]
        assert set(height) == {"value", "stderr", "at", "max_loss", "max_at", "ends"}
        assert height["ends"][0] == own[0].mean_loss()  # to the last bit
        if kind == "matched":  # the same function: rounding of float32
            assert height["ends"][1] == pytest.approx(own[1].mean_loss(), rel=1e-5)
        else:
            assert height["ends"][1] == own[1].mean_loss()
        assert found["accuracy_barrier"]["train"]["value"] >= 0
        assert found["cost"]["gradients"] == (1 if kind in ("bezier", "chain") else 0)
        assert found["cost"]["seconds"] > 0
    assert paths["line"]["length"] == answer["distance"]
    assert paths["matched"]["relative_length"] < 1
    assert 0 < paths["matched"]["permuted"] <= 1
    with np.load(tmp_path / "c" / "connect.npz") as arrays:
        assert arrays["t"].tolist() == [0, 0.25, 0.5, 0.75, 1]
        losses = arrays["line_train_loss"]
        line = losses[0] + arrays["t"] * (losses[-1] - losses[0])
        expected = paths["line"]["barrier"]["train"]
        assert max(losses - line) == pytest.approx(expected["value"], rel=1e-12)
        rows = list(csv.DictReader((tmp_path / "c" / "connect.csv").read_text().splitlines()))
        assert len(rows) == 20
        column = [float(row["train_loss"]) for row in rows if row["path"] == "line"]
        assert column == losses.tolist()
    assert {path.suffix for path in (tmp_path / "c").iterdir()} >= {".png", ".pdf"}
    assert len(answer["weights"]) == 5
    opened = run("landscape", *answer["weights"][:2], "--model", "mlp", "--data", "digits",
                 "--points", 3, "--samples", 20, "--out", tmp_path / "l")  # fmt: skip
    assert opened.status == 0, opened.err
    text = run(*arguments, "--resume")
    assert "is finished; nothing to do" in text.err
    assert "matched" in text.out
    assert str(tmp_path / "c" / "connect.csv") in text.out


def test_resume_takes_finished_paths_bit_for_bit(tmp_path, run, spawn, ends):
    arguments = ["connect", *ends, "--path", "line", "--path", "chain", "--points", 5,
                 "--device", "cpu", "--out", tmp_path / "c"]  # fmt: skip
    process = spawn(*arguments, "--epochs", 100000)
    place = tmp_path / "c" / "paths" / "line.npz"
    for _ in range(600):
        if place.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    process.communicate()
    kept = place.read_bytes()
    assert not (tmp_path / "c" / "connect.json").exists()
    # of other settings it does not count
    other = run(*arguments, "--epochs", 1, "--resume")
    assert "taken from" not in other.err
    whole = (tmp_path / "c" / "connect.npz").read_bytes()
    (tmp_path / "c" / "connect.json").unlink()
    (tmp_path / "c" / "paths" / "chain.npz").unlink()
    resumed = run(*arguments, "--epochs", 1, "--resume", "--json")
    assert "line: taken from" in resumed.err
    assert "chain: taken from" not in resumed.err
    assert (tmp_path / "c" / "connect.npz").read_bytes() == whole
    with np.load(place) as found:
        assert json.loads(str(found["entry"]))["value"] == resumed.json["paths"][0]
    with np.load(place) as found, np.load(io.BytesIO(kept)) as killed:
        assert all((found[name] == killed[name]).all() for name in found if name not in KEYS)
    place.write_bytes(kept[: len(kept) // 2])
    damaged = run(*arguments, "--epochs", 1, "--resume")
    assert damaged.status == 2
    assert "damaged" in damaged.error


def test_statistics_recalibrated_or_frozen(tmp_path, run, convolutions):
    found = {}
    for bn in ("frozen", "recalibrate"):
        outcome = run("connect", *convolutions, "--path", "line", *QUICK, "--bn", bn,
                      "--save-weights", "--json", "--out", tmp_path / bn)  # fmt: skip
        assert outcome.status == 0, outcome.err
        (found[bn],) = outcome.json["paths"]
    own = [load_checkpoint(str(end)).problem(samples=100, batch_size=12) for end in convolutions]
    frozen = found["frozen"]["barrier"]["train"]
    assert frozen["ends"] == [problem.mean_loss() for problem in own]
    assert found["frozen"]["notes"]
    assert not found["recalibrate"]["notes"]
    assert found["recalibrate"]["barrier"]["train"]["ends"] != frozen["ends"]


def test_saved_bends_are_a_network(tmp_path, run, convolutions):
    outcome = run("connect", *convolutions, "--path", "bezier", *QUICK, "--save-weights",
                  "--json", "--out", tmp_path)  # fmt: skip
    (file,) = outcome.json["weights"]
    model = load_checkpoint(file, model="cnn", data="digits").model
    kept = load_file(file)
    assert set(kept) == set(model.state_dict())
    batches = int(kept["1.num_batches_tracked"])
    assert batches == 1  # the statistics are its own: 100 examples in one batch


def test_a_checkpoint_with_itself(tmp_path, run, ends):
    outcome = run("connect", ends[0], ends[0], "--path", "line", "--path", "matched", *QUICK,
                  "--json", "--out", tmp_path)  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert outcome.json["distance"] == 0
    for found in outcome.json["paths"]:
        assert found["barrier"]["train"]["value"] == 0
        assert found["relative_length"] is None


def test_other_labels_are_noted(tmp_path, run, ends):
    noisy = trained(tmp_path, "mlp", 2, label_noise=0.2)
    outcome = run("connect", ends[0], noisy, "--path", "line", *QUICK, "--json",
                  "--out", tmp_path / "c")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "different examples or labels" in outcome.json["notes"][0]


def test_foreign_files_and_a_regression(tmp_path, run, strangers):
    import torch

    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        names.append(tmp_path / f"{seed}.safetensors")
        weights = torch.nn.Linear(3, 2).state_dict()
        copies = {f"ema.{name}": tensor + 1 for name, tensor in weights.items()}
        save_file({**weights, **copies} if seed else weights, names[-1])
    outcome = run("connect", *names, "--model", f"{strangers}:linear", "--data",
                  f"{strangers}:regression", "--loss", "mse", "--points", 3, "--epochs", 1,
                  "--json", "--out", tmp_path / "c")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert all(found["accuracy_barrier"]["train"] is None for found in outcome.json["paths"])
    assert outcome.json["paths"][1]["permuted"] == 0  # one layer: no hidden units
    assert [note for note in outcome.json["notes"] if "not those under 'ema'" in note]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["A"], "two checkpoints, not 1"),
        (["A", "A", "A"], "two checkpoints, not 3"),
        (["A", "C"], "two checkpoints of one architecture"),
        (["A", "nowhere"], "no checkpoint nowhere"),
        (["A", "A", "--path", "lines"], "'lines' is not one of"),
        (["A", "A", "--points", "2"], "should be a whole number at least 3"),
        (["A", "A", "--bn", "freeze"], "frozen"),
        (["A", "A", "--samples", "100000"], "--samples 100000 is more than"),
        (["A", "A", "--split", "test"], "No such option"),
    ],
)
def test_refusals(tmp_path, run, ends, convolutions, arguments, named):
    given = [{"A": ends[0], "C": convolutions[0]}.get(a, a) for a in arguments]
    outcome = run("connect", *given, "--out", tmp_path / "c")
    assert outcome.status == 2
    assert named in outcome.error
    assert not (tmp_path / "c").exists()


def test_the_first_tensor_that_differs_is_named(tmp_path, run, ends, convolutions):
    outcome = run("connect", ends[0], convolutions[0], "--out", tmp_path / "c")
    assert "'1.weight' has shape (128, 64)" in outcome.error
