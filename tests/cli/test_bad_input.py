"""Bad input: exit 2, one line that names the fault, nothing written or lost."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

TRAIN = {
    "--method": "s-sgd", "--data": "digits", "--model": "mlp", "--epochs": 1, "--batch-size": 200,
    "--device": "cpu",
}  # fmt: skip


def flat(options):
    return [str(part) for pair in options.items() for part in pair if part is not None]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"--method": "s-sdg"}, "unknown method 's-sdg': did you mean 's-sgd'"),
        ({"--model": "mpl"}, "did you mean 'mlp'"),
        ({"--data": "digit"}, "did you mean 'digits'"),
        ({"--loss": "cross_entrpy"}, "did you mean 'cross_entropy'"),
        ({"--optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"--schedule": "cosin"}, "did you mean 'cosine'"),
        ({"--precision": "fp8"}, "bf16"),
        ({"--model": "torchvision:resnet19"}, "did you mean 'resnet1"),
        ({"--set": "noise_scal=0.1"}, "did you mean 'noise_scale'"),
        ({"--set": "noise_scale=much"}, "'much' is not a float"),
        ({"--set": "noise_scale=-0.1"}, "noise_scale=-0.1 should be at least 0"),
        ({"--set": "noise_scale=nan"}, "noise_scale=nan should be finite"),
        ({"--set": "noise_law=binry"}, "binary, gaussian"),
        ({"--set": "noise_scale"}, "NAME=VALUE"),
        ({"--lr": -1}, "--lr"),
        ({"--lr": "nan"}, "--lr"),
        ({"--lr": "inf"}, "--lr"),
        ({"--lr": 0}, "--lr"),
        ({"--momentum": 1.5}, "momentum"),
        ({"--weight-decay": -1}, "--weight-decay"),
        ({"--batch-size": 0}, "--batch-size"),
        ({"--epochs": 0}, "--epochs"),
        ({"--epochs": "ten"}, "'ten' is not a whole number"),
        ({"--batch-size": 1298}, "larger than the 1297 training examples: use at most 1297"),
        ({"--label-noise": 1.5}, "--label-noise"),
        ({"--val": 1}, "--val"),
        ({"--val": 0.0001}, "leaves one part empty"),
        ({"--seed": -1}, "--seed"),
        ({"--device": "cuda:7"}, "'cuda:7' does not exist"),
        ({"--device": "tpu"}, "auto, cpu, cuda"),
        ({"--model": "no.such.module:net"}, "does not import"),
        ({"--model": "nofile.py:net"}, "nofile.py"),
        ({"--model": "STRANGERS:missing"}, "no attribute 'missing'"),
        ({"--model": "STRANGERS:value"}, "int, not a callable"),
        ({"--model": "STRANGERS:no_parameters"}, "no parameters"),
        ({"--model": "STRANGERS:not_a_model"}, "int, not an nn.Module"),
        ({"--model": "STRANGERS:raises"}, "KeyError"),
        (
            {"--model": "STRANGERS:three_outputs"},
            "label 9 is out of range: the model has 3",
        ),
        ({"--data": "STRANGERS:empty"}, "empty"),
        ({"--data": "STRANGERS:negative_labels", "--batch-size": 5}, "label -1"),
        ({"--data": "STRANGERS:value"}, "not a callable"),
        ({"--data": "STRANGERS:raises"}, "KeyError"),
        ({"--data": "STRANGERS:not_a_model"}, "(train, test)"),
        (
            {
                "--loss": "STRANGERS:per_example",
                "--data": "STRANGERS:regression",
                "--batch-size": 10,
            },
            "not scalar: its shape is (",
        ),
        ({"--loss": "STRANGERS:number"}, "returns a float, not a scalar tensor"),
        ({"--loss": "STRANGERS:picky"}, "does not take outputs of shape"),
        ({"--model": "cnn", "--data": "mnist1d"}, "(channels, height, width), not (40,)"),
    ],
)
def test_train_refuses(tmp_path, run, strangers, change, named):
    options = {**TRAIN, **change}
    options = {k: str(v).replace("STRANGERS", str(strangers)) for k, v in options.items()}
    outcome = run("train", *flat(options), "--out", tmp_path / "r")
    assert outcome.status == 2, outcome.err
    assert named in outcome.error
    assert outcome.out == ""
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("size", "settings", "least"),
    [(1, [], 2), (3, ["--set", "minibatch=halves"], 4)],
)
def test_batchnorm_needs_two_examples(tmp_path, run, strangers, size, settings, least):
    options = {**TRAIN, "--model": f"{strangers}:batchnorm", "--batch-size": size}
    outcome = run("train", *flat(options), *settings, "--out", tmp_path / "r")
    assert outcome.status == 2, outcome.err
    assert f"BatchNorm cannot train on one example at a time: --batch-size {size}" in outcome.error
    assert outcome.error.endswith(f"at least {least}")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("missing", ["--method", "--data", "--model"])
def test_train_names_what_is_missing(tmp_path, run, missing):
    options = {k: v for k, v in TRAIN.items() if k != missing}
    outcome = run("train", *flat(options), "--out", tmp_path / "r")
    assert outcome.status == 2
    assert missing in outcome.error


def test_a_file_reference_without_attribute(tmp_path, run, strangers):
    for option in ("--model", "--data", "--loss"):
        outcome = run("train", *flat({**TRAIN, option: strangers}), "--out", tmp_path / "r")
        assert outcome.status == 2
        assert f"'{strangers}' should be module:attribute or path.py:attribute" in outcome.error


def test_an_unknown_name_with_no_near_one(tmp_path, run):
    outcome = run("train", *flat({**TRAIN, "--model": "xyzzy"}), "--out", tmp_path / "r")
    assert "unknown model 'xyzzy' (known: mlp, " in outcome.error


def test_an_error_is_not_preceded_by_nothing_to_do(run, trained):
    outcome = run("train", *flat({**TRAIN, "--epochs": 9}), "--out", trained, "--resume")
    assert outcome.status == 2
    assert "nothing to do" not in outcome.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_or_stderr():
    command = [sys.executable, "-m", "ssgd_analysis.cli.main"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr == "Error: standard output: No space left on device\n"
        done = subprocess.run([*command, "trian"], stderr=full, check=False)
        assert done.returncode == 2


def test_unknown_command_and_option(run):
    assert "did you mean 'train'" in run("trian").error
    assert run("trian").status == 2
    outcome = run("train", "--epoch", 3)
    assert outcome.status == 2
    assert "--epochs" in outcome.error


def test_a_folder_that_holds_a_run_is_refused_and_intact(run, trained):
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    outcome = run("train", *flat(TRAIN), "--out", trained)
    assert outcome.status == 2
    assert "already holds a run" in outcome.error
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


def test_a_file_in_the_way_of_the_folder(tmp_path, run):
    (tmp_path / "r").write_text("mine")
    outcome = run("train", *flat(TRAIN), "--out", tmp_path / "r")
    assert outcome.status == 2
    assert str(tmp_path / "r") in outcome.error
    assert (tmp_path / "r").read_text() == "mine"


def test_an_unwritable_folder(tmp_path, run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    outcome = run("train", *flat(TRAIN), "--out", tmp_path / "r")
    assert outcome.status == 2
    assert "not writable" in outcome.error


def test_a_full_disk_keeps_what_was_there(tmp_path, run, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path, data):
        history = tmp_path / "r" / "history.jsonl"
        if "state" in path.name and history.exists() and history.read_text().count("\n") >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    outcome = run("train", *flat({**TRAIN, "--epochs": 3}), "--out", tmp_path / "r")
    assert outcome.status == 1
    assert "No space left" in outcome.error
    monkeypatch.undo()
    assert not list((tmp_path / "r").glob(".*"))
    assert run("train", "--out", tmp_path / "r", "--resume").status == 0


def test_divergence_is_exit_1(tmp_path, run):
    outcome = run("train", *flat({**TRAIN, "--lr": 1e30, "--epochs": 3}), "--out", tmp_path / "r")
    assert outcome.status == 1
    assert "diverged" in outcome.error


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A small finished run; tests must not change it."""
    from ssgd_analysis.runs import TrainConfig
    from ssgd_analysis.training import train

    folder = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(method="sgd", data="digits", model="mlp", epochs=1, batch_size=200)
    train(config, folder)
    return folder


FOREIGN = ["--model", "mlp", "--data", "digits", "--device", "cpu"]


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def foreign_files(folder: Path, trained: Path) -> dict[str, Path]:
    """Weight files that must be refused."""
    good = load_file(trained / "final.safetensors")
    whole = (trained / "final.safetensors").read_bytes()
    files = {name: folder / f"{name}.safetensors" for name in ("cut", "junk", "other", "shape")}
    files["cut"].write_bytes(whole[: len(whole) // 2])
    files["junk"].write_bytes(b"not a weight file")
    save_file({"something.else": torch.zeros(2)}, files["other"])
    save_file({**good, "3.weight": torch.zeros(128, 127)}, files["shape"])
    files["missing"] = folder / "missing.safetensors"
    save_file({k: v for k, v in good.items() if k != "5.bias"}, files["missing"])
    files["pickle"] = folder / "pickle.pt"
    files["pickle"].write_bytes(pickle.dumps(good))
    files["evil"] = folder / "evil.pth"
    torch.save({"weights": Evil()}, files["evil"])
    files["torn"] = folder / "torn.pt"
    torch.save(good, files["torn"])
    files["torn"].write_bytes(files["torn"].read_bytes()[:-500])
    files["list"] = folder / "list.pt"
    torch.save([1, 2], files["list"])
    files["empty"] = folder / "empty.pt"
    files["empty"].touch()
    files["noise"] = folder / "noise.pt"
    files["noise"].write_bytes(b"abc")
    files["text"] = folder / "weights.txt"
    files["text"].write_text("0.1 0.2")
    return files


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("cut", "not a readable tensor file"),
        ("junk", "neither a safetensors file nor one that torch.save wrote"),
        ("other", "no tensor 'something.else'"),
        ("shape", "'3.weight' has shape (128, 127), the model's has (128, 128)"),
        ("missing", "'5.bias' is missing"),
        ("pickle", "weights-only"),
        ("evil", "weights-only"),
        ("torn", "damaged"),
        ("list", "does not hold tensors by name"),
        ("empty", "empty.pt is empty"),
        ("noise", "noise.pt is neither"),
        ("text", "weights.txt is neither"),
    ],
)
def test_bad_weight_files(tmp_path, run, trained, name, named):
    path = foreign_files(tmp_path, trained)[name]
    outcome = run("sharpness", path, *FOREIGN)
    assert outcome.status == 2, outcome.err
    assert str(path) in outcome.error
    assert named in outcome.error


def test_a_damaged_file_inside_a_run(tmp_path, run, trained):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    (copy / "final.safetensors").write_bytes(b"\0" * 50)
    outcome = run("sharpness", copy)
    assert outcome.status == 2
    assert "final.safetensors" in outcome.error


GOOD = '{"epoch": 1, "step": 6, "train_loss": 0.5, "test_accuracy": 0.9}\n'


@pytest.mark.parametrize(
    ("history", "named"),
    [
        ("", "missing or empty"),
        (None, "missing or empty"),
        (GOOD + "{}", "line 2, is damaged: it has no 'epoch'"),
        (GOOD[:30], "line 1, is damaged"),
        ("[1]", "line 1, is damaged: it is not an object"),
        (b"\xff\xfe", "is damaged"),
        (GOOD.replace("0.5", "NaN"), "'train_loss' is nan"),
        (GOOD.replace("0.5", "null"), "no 'train_loss'"),
        (GOOD.replace("0.5", '"low"'), "'train_loss' is 'low'"),
        (GOOD.replace("6", "6.5"), "'step' is 6.5"),
        (GOOD.replace("0.9", "[0.9]"), "'test_accuracy' is [0.9]"),
        (GOOD.replace("test_accuracy", "accuracy"), "line 1, is damaged: it has no 'test_accuracy"),
    ],
)
def test_a_damaged_history(tmp_path, run, trained, history, named):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    path = copy / "history.jsonl"
    if history is None:
        path.unlink()
    else:
        path.write_bytes(history if isinstance(history, bytes) else history.encode())
    outcome = run("compare", copy, "--metric", "test_accuracy", "--metric", "sam")
    assert outcome.status == 2, outcome.err
    assert str(path) in outcome.error
    assert named in outcome.error
    if "accuracy" not in named:
        assert run("train", "--out", copy, "--resume").status == 2


def test_a_history_that_lost_epochs_is_not_resumed(tmp_path, run):
    out = tmp_path / "r"
    assert run("train", *flat({**TRAIN, "--epochs": 2}), "--out", out).status == 0
    (out / "final.safetensors").unlink()
    lines = (out / "history.jsonl").read_text().splitlines(keepends=True)
    (out / "history.jsonl").write_text(lines[0])
    outcome = run("train", "--out", out, "--resume")
    assert outcome.status == 2
    assert "history.jsonl is damaged: it has 1 of the 2 epochs" in outcome.error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "sdg"}, "did you mean 'sgd'"),
        ({"method": None}, "--method None has the wrong type"),
        ({"model": 3}, "--model 3 has the wrong type"),
        ({"settings": [1]}, "--settings [1] has the wrong type"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"label": 1}, "--label 1"),
        ({"data_dir": 5}, "--data-dir 5"),
        ({"batch_size": "many"}, "--batch-size 'many'"),
        ("cut", "cannot read"),
        ("[]", "not an object"),
        ("{}", "missing"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "sharpness"])
def test_a_damaged_config(tmp_path, run, trained, change, named, command):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    path = copy / "config.json"
    text = path.read_text()
    if isinstance(change, dict):
        path.write_text(json.dumps({**json.loads(text), **change}))
    else:
        path.write_text(text[:50] if change == "cut" else change)
    outcome = run(command, copy)
    assert outcome.status == 2, outcome.err
    assert str(path) in outcome.error
    assert named in outcome.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "no checkpoint nowhere"),
        (["TRAINED@99"], "has not saved step 99"),
        (["TRAINED", "--metric", "lamda_max"], "did you mean 'lambda_max'"),
        (["TRAINED", "--operator", "hesian"], "did you mean 'hessian'"),
        (["TRAINED", "--top", 0], "--top"),
        (["TRAINED", "--tol", 0], "--tol"),
        (["TRAINED", "--tol", "nan"], "--tol"),
        (["TRAINED", "--samples", 0], "--samples"),
        (["TRAINED", "--samples", 9999], "more than the 1297 examples"),
        (["TRAINED", "--split", "tests"], "'tests' is not one of"),
        (["TRAINED", "--split", "val"], "no split 'val'"),
        (["TRAINED", "--data", "mnist1d"], "shape"),
        (["TRAINED", "--operator", "ggn", "--cross-check"], "--cross-check"),
        (["TRAINED/final.safetensors", "nowhere"], "no checkpoint nowhere"),
        (["TRAINED", "--weights", "ema"], "--weights chooses in foreign weight files"),
        (["TRAINED/final.safetensors", "--weights", "ema"], "has no weights under 'ema'"),
        (["TRAINED", "--layers", "conv9"], "no parameter matches --layers 'conv9'"),
        (["TRAINED", "--memory-budget", "lots"], "not an amount of memory"),
        (["TRAINED", "--time-budget", 0], "--time-budget"),
        (["TRAINED", "--product", "fast"], "'fast' is not one of"),
        (["TRAINED", "--micro-batch", 0], "--micro-batch"),
        (["TRAINED", "--trace-tol", -1], "--trace-tol"),
        (["TRAINED", "--save-vectors"], "--save-vectors needs --out"),
        (["TRAINED", "--resume"], "--resume needs --out"),
        (["TRAINED", "--operator", "covariance", "--per-layer"], "per-layer"),
    ],
)
def test_sharpness_refuses(run, trained, arguments, named):
    arguments = [str(a).replace("TRAINED", str(trained)) for a in arguments]
    outcome = run("sharpness", *arguments)
    assert outcome.status == 2, outcome.err
    assert named in outcome.error


def test_a_foreign_file_needs_model_and_data(tmp_path, run, trained):
    shutil.copy(trained / "final.safetensors", tmp_path / "w.safetensors")
    outcome = run("sharpness", tmp_path / "w.safetensors", "--model", "mlp")
    assert outcome.status == 2
    assert "--model and --data" in outcome.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--dims", 3], "--dims 3"),
        (["--directions", "randm"], "did you mean 'random'"),
        (["--normalize", "filtr"], "did you mean 'filter'"),
        (["--bn", "thaw"], "frozen"),
        (["--span", "inf"], "--span"),
        (["--span", 0], "single point"),
        (["--points", 1], "--points"),
        (["--directions", "between"], "two checkpoints, not 1"),
        (["--directions", "between", "--dims", 2], "three checkpoints"),
        (["--directions", "trajectory"], "--save-every"),
        (["--repeats", 2, "--directions", "eigen"], "--repeats"),
    ],
)
def test_landscape_refuses(tmp_path, run, trained, arguments, named):
    outcome = run("landscape", trained, *arguments, "--out", tmp_path / "l")
    assert outcome.status == 2, outcome.err
    assert named in outcome.error
    assert not (tmp_path / "l" / "landscape.npz").exists()


def test_compare_refuses(tmp_path, run, trained):
    (tmp_path / "empty").mkdir()
    assert "no runs in" in run("compare", tmp_path / "empty").error
    assert run("compare", tmp_path / "empty").status == 2
    assert "no folder" in run("compare", tmp_path / "nowhere").error
    assert "did you mean 'lambda_max'" in run("compare", trained, "--metric", "lambdamax").error
    assert "unknown baseline" in run("compare", trained, "--baseline", "adamm").error


def test_study_refuses(tmp_path, run):
    bad = tmp_path / "bad.toml"
    out = ["--out", tmp_path / "s"]
    for text, named in [
        ("not toml", "not TOML"),
        ("seed = [1]\n[[arm]]\nmethod = 'sgd'", "did you mean 'seeds'"),
        ("seeds = [1]", "no [[arm]]"),
        ("[[arm]]\nmethod = 'sdg'\n[train]\ndata='digits'\nmodel='mlp'", "did you mean 'sgd'"),
        (
            "[[arm]]\nmethod = 'sgd'\nset = {rho = 1.0}\n[train]\ndata='digits'\nmodel='mlp'",
            "unknown setting of sgd 'rho'",
        ),
        ("[[arm]]\nmethod = 'sgd'\n[train]\ndata='digits'\nmodel='mlp'\nlr='big'", "type"),
    ]:
        bad.write_text(text)
        outcome = run("study", bad, *out)
        assert outcome.status == 2, (text, outcome.err)
        assert named in outcome.error
    assert "did you mean 'digits'" in run("study", "digit", *out).error
    assert not (tmp_path / "s").exists()


def test_errors_show_a_traceback_only_under_debug(tmp_path, capsys):
    from ssgd_analysis.cli.main import main

    with pytest.raises(SystemExit):
        main(["sharpness", str(tmp_path / "nowhere"), "--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["torch.tensor(3)", "(o.detach() - t).square().mean()"])
def test_a_loss_without_gradient_is_the_inputs_fault(tmp_path, run, value):
    source = tmp_path / "net.py"
    source.write_text(
        "import torch\nfrom torch import nn\nX = torch.randn(8, 2)\n"
        "def data():\n    return (X, X), (X, X)\n"
        f"def net():\n    return nn.Linear(2, 2)\ndef loss(o, t):\n    return {value}\n",
        encoding="utf-8",
    )
    parts = [word for name in ("data", "loss") for word in (f"--{name}", f"{source}:{name}")]
    out = tmp_path / "run"
    arguments = ("--method", "sgd", "--model", f"{source}:net", "--batch-size", 4, "--out", out)
    outcome = run("train", *parts, *arguments)
    assert outcome.status == 2
    assert "net.py:loss has no gradient" in outcome.error
    assert not out.exists()
