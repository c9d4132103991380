"""The commands do what the contract says, on digits and on strangers' things."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from ssgd_analysis.cli.main import COMMANDS

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.methods import METHODS
from ssgd_analysis.runs.checkpoint import load_checkpoint

SMALL = ["--epochs", 2, "--batch-size", 100, "--device", "cpu"]
# few probes, and two batches: what the commands say costs a second instead of five
QUICK = ["--probes", 4, "--samples", 64, "--batch-size", 32]


def test_train_json(tmp_path, run):
    outcome = run(
        "train", "--method", "s-sgd", "--data", "digits", "--model", "mlp", *SMALL,
        "--set", "noise_scale=0.3", "--set", "noise_law=gaussian", "--json",
        "--out", tmp_path / "r",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    answer = outcome.json
    assert answer["run"] == str(tmp_path / "r")
    assert answer["method"] == "s-sgd"
    assert answer["config"]["settings"]["noise_scale"] == 0.3
    assert answer["config"]["settings"]["noise_law"] == "gaussian"
    last = (tmp_path / "r" / "history.jsonl").read_text().splitlines()[-1]
    assert answer["final"] == json.loads(last)
    assert (tmp_path / "r" / "final.safetensors").is_file()
    assert json.loads((tmp_path / "r" / "config.json").read_text())["versions"]["torch"]


def test_train_prints_a_table(tmp_path, run):
    outcome = run("train", "--method", "sgd", "--data", "two_moons", "--model", "mlp", *SMALL,
                  "--out", tmp_path / "r")  # fmt: skip
    assert outcome.status == 0
    assert "test_accuracy" in outcome.out


def test_sharpness_json(run, runs):
    outcome = run(
        "sharpness", runs / "sgd-0", f"{runs / 'sgd-0'}@0", runs / "s-sgd-0" / "final.safetensors",
        "--top", 3, "--tol", "1e-3", "--metric", "expected", "--metric", "sam", *QUICK, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    checkpoints = outcome.json["checkpoints"]
    assert [c["checkpoint"] for c in checkpoints] == [
        str(runs / "sgd-0"), f"{runs / 'sgd-0'}@0", str(runs / "s-sgd-0" / "final.safetensors")
    ]  # fmt: skip
    for found in checkpoints:
        assert found["operator"] == "hessian"
        assert found["split"] == "train"
        assert found["n_samples"] == 64
        assert found["n_parameters"] == 26122
        values = [pair["value"] for pair in found["eigenvalues"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert all(pair["residual"] <= 1e-3 for pair in found["eigenvalues"])
        assert found["smallest_eigenvalue"]["value"] < values[-1]
        assert set(found["metrics"]) == {"expected", "sam"}
        assert set(found["metrics"]["sam"]) >= {"value", "stderr", "settings", "cost"}
        density = found["density"]
        assert len(density["grid"]) == len(density["density"])
        assert found["cost"]["matvecs"] > 0
        assert found["trace"]["stderr"] > 0


def test_sharpness_repeats_under_a_seed(run, runs):
    arguments = ["sharpness", runs / "sgd-0", "--metric", "expected", *QUICK, "--json"]

    def without_time(outcome):
        found = outcome.json["checkpoints"][0]
        found["cost"].pop("seconds")
        return found

    assert without_time(run(*arguments)) == without_time(run(*arguments))


def test_sharpness_writes_its_folder(tmp_path, run, runs):
    outcome = run("sharpness", runs / "sgd-0", *QUICK, "--cross-check", "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    assert {"sharpness.json", "density.png", "density.pdf"} <= {p.name for p in tmp_path.iterdir()}
    check = json.loads((tmp_path / "sharpness.json").read_text())["checkpoints"][0]["cross_check"]
    # both are judged by our operator; ranks agree unless two eigenvalues are nearly equal
    assert check["largest_difference"] < 0.02
    assert "pyhessian" in outcome.out


def sharpness(run, *arguments) -> list[dict]:
    outcome = run("sharpness", *arguments, "--json")
    assert outcome.status == 0, outcome.err
    return outcome.json["checkpoints"]


def test_sharpness_of_some_layers(run, runs):
    arguments = [runs / "sgd-0", *QUICK, "--top", 1]
    (whole,) = sharpness(run, *arguments, "--per-layer")
    names = [layer["name"] for layer in whole["layers"]]
    assert sum(layer["n_parameters"] for layer in whole["layers"]) == whole["n_parameters"]
    last = whole["layers"][-1]
    (part,) = sharpness(run, *arguments, "--layers", names[-1])
    assert part["n_parameters"] == last["n_parameters"]
    values = [found["value"] for found in (part["eigenvalues"][0], last["lambda_max"])]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    assert values[0] <= whole["eigenvalues"][0]["value"] * (1 + 1e-3)


@pytest.mark.parametrize("operator", ["fisher-mc", "covariance"])
def test_sharpness_knows_more_operators(run, runs, operator):
    (found,) = sharpness(run, runs / "sgd-0", *QUICK, "--operator", operator, "--top", 1)
    assert found["operator"] == operator
    assert found["smallest_eigenvalue"]["value"] > -1e-3 * found["eigenvalues"][0]["value"]


def test_sharpness_plans_before_it_runs(run, runs):
    arguments = [runs / "sgd-0", "--samples", 100, "--memory-budget", "64M"]
    (planned,) = sharpness(run, *arguments, "--plan")
    plan = planned["plan"]
    assert plan["memory"] == 64 * 2**20
    assert plan["peak"] <= plan["memory"]
    assert plan["seconds"] >= plan["products"] * plan["product"] > 0
    assert "eigenvalues" not in planned
    outcome = run("sharpness", *arguments, "--plan")
    assert "products" in outcome.out
    measured = run("sharpness", *arguments, "--top", 1, "--probes", 4)
    assert f"{runs / 'sgd-0'}: {plan['way']} products" in measured.err


@pytest.mark.parametrize("product", ["linear", "graph", "difference"])
def test_sharpness_multiplies_as_told(run, runs, product):
    # differences step in float64, so far less than from kink to kink of a ReLU net
    arguments = [runs / "sgd-0", *QUICK, "--top", 1, "--tol", "1e-2"]
    (free,) = sharpness(run, *arguments)
    (told,) = sharpness(run, *arguments, "--product", product, "--micro-batch", 16)
    assert told["plan"] == {"way": product, "micro_batch": 16}
    values = [found["eigenvalues"][0]["value"] for found in (free, told)]
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_sharpness_ends_in_time(run, runs):
    outcome = run("sharpness", runs / "sgd-0", "--tol", "1e-9", "--time-budget", "0.01", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["checkpoints"][0]["stop"] == "time"
    text = run("sharpness", runs / "sgd-0", "--tol", "1e-9", "--time-budget", "0.01")
    assert "Warning: the time budget ended the search short of --tol" in text.err


def test_sharpness_saves_vectors_and_resumes(tmp_path, run, runs):
    names = [runs / "sgd-0", f"{runs / 'sgd-0'}@0"]
    arguments = [*names, *QUICK, "--top", 2, "--tol", "1e-3", "--out", tmp_path]
    arguments += ["--save-vectors"]
    first = sharpness(run, *arguments)
    vectors = load_file(tmp_path / "vectors-000.safetensors")
    weights = load_file(runs / "sgd-0" / "final.safetensors")
    for index in range(2):
        parts = {n.partition("/")[2]: t for n, t in vectors.items() if n[0] == str(index)}
        assert {n: t.shape for n, t in parts.items()} == {
            n: t.shape for n, t in weights.items() if n in parts
        }
        assert sum(float(t.square().sum()) for t in parts.values()) == pytest.approx(1, rel=1e-4)
    (tmp_path / "checkpoints" / "001.json").unlink()  # as if the call had been killed there
    resumed = run("sharpness", *arguments, "--resume", "--json")
    assert f"{names[0]}: taken from" in resumed.err
    again = resumed.json["checkpoints"]
    assert again[0] == first[0]
    for a, b in zip(again[1]["eigenvalues"], first[1]["eigenvalues"], strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-3)
    changed = [*QUICK, "--samples", 32]
    other = run("sharpness", names[0], *changed, "--out", tmp_path, "--resume", "--json")
    assert "taken from" not in other.err  # another measurement
    assert other.json["checkpoints"][0]["n_samples"] == 32


@pytest.mark.parametrize(
    ("operator", "metric"),
    [("hessian", "expected"), ("hessian", "all"), ("ggn", "expected"), ("fisher", "expected")],
)
def test_strangers_model_data_and_tied_weights(tmp_path, run, strangers, operator, metric):
    out = tmp_path / "r"
    reference = [
        "--model", f"{strangers}:tagger", "--data", f"{strangers}:tags",
    ]  # fmt: skip
    outcome = run("train", "--method", "s-sgd", *reference, "--epochs", 2, "--batch-size", 8,
                  "--out", out, "--json")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert outcome.json["final"]["epoch"] == 2  # what the model prints is not on stdout
    chosen = ["--operator", operator, "--top", 2, "--probes", 4, "--json"]
    outcome = run("sharpness", out, *chosen, "--metric", metric)
    assert outcome.status == 0, outcome.err
    assert outcome.json["checkpoints"][0]["n_parameters"] == 12 * 6 + 6 * 2 + 12 + 3
    weights = load_file(out / "final.safetensors")
    tied = {name: tensor for name, tensor in weights.items() if name != "out.weight"}
    save_file(tied, tmp_path / "foreign.safetensors")  # as writers do that keep a tied one once
    foreign = run("sharpness", tmp_path / "foreign.safetensors", *reference, *chosen)
    assert foreign.status == 0, foreign.err
    assert (
        foreign.json["checkpoints"][0]["eigenvalues"]
        == outcome.json["checkpoints"][0]["eigenvalues"]
    )


def test_strangers_loss_and_regression_in_float64(tmp_path, run, strangers):
    reference = [
        "--model", f"{strangers}:linear", "--data", f"{strangers}:regression",
        "--loss", f"{strangers}:huber",
    ]  # fmt: skip
    outcome = run("train", "--method", "wni-2", *reference, "--epochs", 3, "--batch-size", 10,
                  "--out", tmp_path / "r", "--json")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert outcome.json["final"]["test_accuracy"] is None
    sharp = run("sharpness", tmp_path / "r", "--dtype", "float64", "--loss", "mse", "--json")
    found = sharp.json["checkpoints"][0]
    # mse of a linear model: the Hessian is known, 2/k · [x 1]ᵀ[x 1]/N for each of k outputs
    problem = load_checkpoint(str(tmp_path / "r"), dtype=torch.float64).problem()
    x = torch.cat([inputs for inputs, _ in problem.batches])
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    exact = torch.linalg.eigvalsh(x.T @ x / len(x)).flip(0)
    values = [pair["value"] for pair in found["eigenvalues"]]
    np.testing.assert_allclose(values[:2], exact[:1].expand(2).numpy(), rtol=1e-6)


def test_foreign_weights_and_a_copy_beside_them(tmp_path, run, runs):
    weights = load_file(runs / "sgd-0" / "final.safetensors")
    plain = {f"module.{name}": tensor for name, tensor in weights.items()}
    ema = load_file(runs / "sgd-1" / "final.safetensors")
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": plain, "ema": ema}, path)
    arguments = ["--model", "mlp", "--data", "digits", *QUICK, "--top", 1, "--json"]
    arguments += ["--loss", "cross_entropy"]
    foreign = run("sharpness", path, *arguments)
    chosen = run("sharpness", path, *arguments, "--weights", "ema")
    own = run("sharpness", runs / "sgd-0", runs / "sgd-1", *arguments)
    assert (foreign.status, chosen.status) == (0, 0), foreign.err + chosen.err
    found = [outcome.json["checkpoints"][0] for outcome in (foreign, chosen)]
    truth = own.json["checkpoints"]
    assert [each["loss"] for each in found] == [each["loss"] for each in truth]
    assert "not those under 'ema' (--weights ema)" in found[0]["notes"][0]
    assert found[0]["notes"][0] in foreign.err
    assert found[1]["notes"] == truth[1]["notes"]


def test_compare_json(run, runs):
    outcome = run("compare", runs, "--metric", "lambda_max", "--metric", "test_accuracy", "--json")
    assert outcome.status == 0, outcome.err
    answer = outcome.json
    assert {g["name"] for g in answer["groups"]} == {"sgd", "s-sgd"}
    for group in answer["groups"]:
        assert len(group["runs"]) == 2
        found = group["metrics"]["lambda_max"]
        assert found["n"] == 2
        assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
    assert answer["added"] == ["expected", "adaptive_worst"]  # as λ_max does not count
    test = answer["tests"][0]
    assert (test["metric"], test["group"], test["baseline"]) == ("lambda_max", "s-sgd", "sgd")
    verdicts = {"flatter", "sharper", "no difference", "undecided", "not comparable"}
    assert test["verdict"] in verdicts
    assert answer["verdict"]
    assert 0 < len(answer["answer"]) <= 200
    (row,) = answer["table"]
    assert row["rival"] == "s-sgd vs sgd"
    assert row.keys() >= {"setting", "flatness", "accuracy", "difference", "ci95"}


def test_compare_one_seed_answers_and_says_so(run, runs):
    outcome = run("compare", runs / "sgd-0", runs / "s-sgd-0", "--metric", "lambda_max")
    assert outcome.status == 0, outcome.err
    assert "one seed gives no interval" in outcome.out
    assert outcome.out.startswith("Is s-sgd flatter than sgd? ")
    call = ["--metric", "sam", "--loss-tolerance", 2, "--json"]
    answer = run("compare", runs / "sgd-0", runs / "s-sgd-0", *call).json
    assert answer["tests"][0]["verdict"] == "undecided"
    assert answer["tests"][0]["seeds_needed"] == 2
    assert answer["groups"][0]["metrics"]["sam"]["ci95"] is None


def test_compare_writes_a_report(tmp_path, run, runs):
    outcome = run("compare", runs, "--metric", "lambda_max", "--match-loss", "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    names = {p.name for p in tmp_path.iterdir()}
    assert {"report.html", "groups.csv", "tests.csv", "intervals.png", "compare.json"} <= names
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page.replace("https://", "http") or 'src="http' not in page
    assert "data:image/png;base64" in page


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("methods", "s-sgd", "--set noise_scale=0.1"),
        ("models", "mlp", "mlp"),
        ("data", "digits", "digits"),
        ("metrics", "expected", "invariant to:"),
        ("optimizers", "sgd", "sgd"),
        ("studies", "symmetry", "arms: one-sided (wni), two independent (wni-2)"),
    ],
)
def test_list_shows_one_entry_in_full(run, kind, name, words):
    text = run("list", kind, name).out
    assert words in text
    (entry,) = run("list", kind, name, "--json").json
    assert entry["name"] == name
    assert entry["description"] in text
    if kind in ("methods", "metrics", "studies"):
        assert len(entry["description"].splitlines()) > 3
    wrong = run("list", kind, name[:-1] + "_")
    assert wrong.status == 2
    assert f"did you mean '{name}'?" in wrong.error


@pytest.mark.parametrize("kind", ["methods", "models", "data", "metrics", "studies", "systems"])
def test_list(run, kind):
    entries = run("list", kind, "--json").json
    assert all({"name", "summary"} <= entry.keys() for entry in entries)
    if kind != "systems":
        assert entries
        assert entries[0]["name"] in run("list", kind).out
    if kind == "methods":
        assert [e["name"] for e in entries] == list(METHODS)
        setting = next(e for e in entries if e["name"] == "s-sgd")["settings"][0]
        assert setting == {
            "name": "noise_scale", "type": "float", "default": 0.1, "choices": [],
            "meaning": setting["meaning"],
        }  # fmt: skip
    if kind == "metrics":
        assert {e["name"]: e["invariant_to"] for e in entries}.keys() == METRICS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_ends_with_an_example(run, command):
    outcome = run(command, "--help")
    assert outcome.status == 0
    last = outcome.out.strip().splitlines()[-1].strip()
    assert last.startswith("Example: ")
    assert f"ssgd-analyze {command}" in last


def test_help_imports_no_torch():
    code = (
        "import sys; from ssgd_analysis.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "sharpness" in done.stdout


def test_version(run):
    assert "ssgd-analyze" in run("--version").out


STRANGE = """
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 3)
    def forward(self, x):
        print("hello")
        return self.head(self.body(x).mean(1))

def attention():
    return Attention()

def random_data():
    x = torch.randn(40, 4, 8)
    return (x, torch.randint(3, (40,))), (x, torch.randint(3, (40,)))

def binary():
    x = torch.randn(30, 4)
    return (x, torch.randint(2, (30,))), (x, torch.randint(2, (30,)))

def logit():
    return nn.Linear(4, 1)

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, x):
        return self.layer(x + torch.randn_like(x))

def noisy():
    return Noisy()

def double():
    return nn.Linear(4, 2).double()

def bce(outputs, targets):
    return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())
"""  # noqa: E501


@pytest.fixture
def strange(tmp_path):
    path = tmp_path / "strange.py"
    path.write_text(STRANGE)
    return path


def test_attention_has_a_hessian_and_random_data_is_the_runs_own(tmp_path, run, strange):
    out = tmp_path / "r"
    made = run("train", "--method", "s-sgd", "--model", f"{strange}:attention",
               "--data", f"{strange}:random_data", "--epochs", 1, "--batch-size", 10,
               "--seed", 3, "--out", out, "--json")  # fmt: skip
    assert made.status == 0, made.err
    quick = ["--top", 1, "--probes", 4, "--product", "graph"]
    found = run("sharpness", out, *quick, "--json")
    assert found.status == 0, found.err
    # the data set draws from the global generator, seeded by the run's seed in both commands
    checkpoint = found.json["checkpoints"][0]
    assert checkpoint["loss"] == pytest.approx(made.json["final"]["train_loss"], rel=1e-5)


def test_own_loss_for_one_logit(tmp_path, run, strange):
    made = run("train", "--method", "sgd", "--model", f"{strange}:logit",
               "--data", f"{strange}:binary", "--loss", f"{strange}:bce", "--epochs", 1,
               "--batch-size", 10, "--out", tmp_path / "r", "--json")  # fmt: skip
    assert made.status == 0, made.err
    assert made.json["final"]["train_accuracy"] is None


def test_a_reserved_looking_file_of_the_users_survives(tmp_path, run):
    out = tmp_path / "home"
    (out / "deep").mkdir(parents=True)
    mine = [out / ".editor.tmp", out / "deep" / ".notes.tmp.bak", out / ".a.12345678.tmp"]
    for path in mine:
        path.write_text("mine")
    arguments = ["--method", "sgd", "--data", "two_moons", "--model", "mlp", *SMALL]
    assert run("train", *arguments, "--out", out).status == 0
    assert all(path.read_text() == "mine" for path in mine)


def test_a_foreign_file_beside_another_tools_config(tmp_path, run, runs):
    save_file(load_file(runs / "sgd-0" / "final.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architectures": ["Net"]}')
    found = run("sharpness", tmp_path / "model.safetensors", "--model", "mlp", "--data", "digits",
                *QUICK, "--top", 1, "--json")  # fmt: skip
    assert found.status == 0, found.err


def test_study_json_is_pure_though_the_model_prints(tmp_path, spawn, strange):
    import subprocess

    spec = tmp_path / "s.toml"
    spec.write_text(
        'focus = "s-sgd"\nmetrics = ["train_loss"]\nseeds = [0, 1]\n'
        f'[train]\ndata = "{strange}:random_data"\nmodel = "{strange}:attention"\nepochs = 1\n'
        'batch_size = 10\n[[arm]]\nmethod = "sgd"\n[[arm]]\nmethod = "s-sgd"\n'
    )
    command = [sys.executable, "-m", "ssgd_analysis.cli.main", "study", spec, "--jobs", "2",
               "--out", tmp_path / "out", "--json"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["groups"]) == 2


def test_a_model_that_is_random_in_evaluation_mode_is_not_measured(tmp_path, run, strange):
    reference = ["--model", f"{strange}:noisy", "--data", f"{strange}:binary"]
    made = run("train", "--method", "sgd", *reference, "--epochs", 1, "--batch-size", 10,
               "--out", tmp_path / "r")  # fmt: skip
    assert made.status == 0, made.err
    found = run("sharpness", tmp_path / "r")
    assert found.status == 2
    assert "differs between two evaluations" in found.error


def test_a_float64_model_trains_in_float32(tmp_path, run, strange):
    reference = ["--model", f"{strange}:double", "--data", f"{strange}:binary"]
    made = run("train", "--method", "sgd", *reference, "--epochs", 1, "--batch-size", 10,
               "--out", tmp_path / "r")  # fmt: skip
    assert made.status == 0, made.err
    weights = load_file(tmp_path / "r" / "final.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
