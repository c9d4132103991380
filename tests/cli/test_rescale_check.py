"""``sharpness --rescale-check``: the user's own network in other coordinates."""

import copy
import re

import nets
import pytest
import torch
from safetensors.torch import save_file

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.problem import Problem
from ssgd_analysis.sharpness.rescale_check import extreme, rescale_check
from ssgd_analysis.symmetries.transformations import rescaled

STRANGER = '''
import torch
import torch.nn.functional as F
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
    def forward(self, x):
        return F.relu(x + self.two(F.relu(self.norm(self.one(x)))))

class Net(nn.Module):
    """Residual; names, order of definition and structure are nobody's business."""
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 10)
        self.blocks = nn.ModuleList([Block(6), Block(6)])
        self.stem = nn.Conv2d(1, 6, 3, stride=2)
    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))

def residual():
    return Net()

def gelu():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.GELU(), nn.Linear(12, 10))
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    from ssgd_analysis.runs import TrainConfig
    from ssgd_analysis.training import train

    folder = tmp_path_factory.mktemp("runs")
    for model in ("mlp", "cnn"):
        config = TrainConfig(method="sgd", data="digits", model=model, epochs=3, batch_size=100)
        train(config, folder / model)
    return folder


def check(run, *arguments) -> dict:
    size = ["--top", 1, "--samples", 64, "--batch-size", 64, "--probes", 4]
    outcome = run("sharpness", *arguments, *size, "--json")
    assert outcome.status == 0, outcome.err
    return outcome.json["checkpoints"][0]["rescale_check"]


def ratios(found: dict, kind: str, metric: str) -> list[float]:
    return [one["metrics"][metric]["ratio"] for one in found["transformations"][kind]["changes"]]


@pytest.mark.parametrize(
    ("model", "rescalings", "missing"),
    [
        ("mlp", {"layer": 1, "neuron": 2, "permutation": 2}, {"batchnorm", "folding"}),
        pytest.param(
            "cnn",
            {"layer": 3, "neuron": 3, "batchnorm": 3, "permutation": 3, "folding": 3},
            set(),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_trained_networks(run, runs, model, rescalings, missing):
    found = check(run, runs / model, "--rescale-check")
    assert found["factor"] == 5
    assert set(found["metrics"]) == {"lambda_max", "trace", "adaptive_worst", "expected"}
    tried = found["transformations"]
    assert {name for name, one in tried.items() if not one["found"]} == missing
    for kind, places in rescalings.items():
        changes = tried[kind]["changes"]
        scales = kind in ("layer", "neuron", "batchnorm")
        factors = [change["factor"] for change in changes]
        assert factors == ([5, 0.2] if scales else [None])
        assert all(len(change["done"]) == places for change in changes)
        # float32 rounding; the layers' sums are of a few hundred terms
        assert all(change["output_change"] < 1e-5 for change in changes)
        if scales:
            # the same to float32 rounding, which 20 ascent steps amplify
            for metric in ("adaptive_worst", "expected"):
                assert ratios(found, kind, metric) == pytest.approx([1, 1], abs=5e-3)
            assert max(ratios(found, kind, "lambda_max")) > 2
            assert max(ratios(found, kind, "trace")) > 2
    # the order of neurons: eigenvalues stay to the residual's square, random metrics to their error
    (order,) = tried["permutation"]["changes"]
    assert order["metrics"]["lambda_max"]["ratio"] == pytest.approx(1, abs=1e-3)
    for metric in ("trace", "expected"):
        row = order["metrics"][metric]
        assert abs(row["difference"]) <= 3.5 * row["difference_stderr"]


def test_says_what_the_table_shows(run, runs):
    outcome = run("sharpness", runs / "mlp", "--top", 1, "--samples", 64, "--rescale-check")
    found = check(run, runs / "mlp", "--rescale-check")
    assert outcome.status == 0
    (line,) = re.findall(r"λ_max of this network .*", outcome.out)
    said = re.fullmatch(
        r"λ_max of this network can be made (\S+) times larger without changing its function"
        r" \((\w+), factor (\S+)\); expected moved 0\.\d%; adaptive_worst moved 0\.\d%",
        line,
    )
    largest = max(
        ratio for kind in ("layer", "neuron") for ratio in ratios(found, kind, "lambda_max")
    )
    assert float(said[1]) == pytest.approx(largest, rel=0.05)  # two digits are printed
    assert found["says"][0] == line
    (places,) = re.findall(r" places .*", outcome.out)
    assert places.split() == ["places", "1", "2", "not", "found", "2", "not", "found"]


def test_metrics_asked_for_and_another_factor(run, runs):
    asked = ["--metric", "sam", "--metric", "expected:scale=none,sigma=0.01"]
    found = check(run, runs / "mlp", "--rescale-check", "--rescale-factor", 2, *asked)
    assert list(found["metrics"]) == ["lambda_max", "trace", *asked[1::2]]
    changes = found["transformations"]["layer"]["changes"]
    assert [change["factor"] for change in changes] == [2, 0.5]
    said = " ".join(found["says"])
    assert "expected:scale=none,sigma=0.01 of this network can be made" in said


@pytest.mark.slow
def test_a_strangers_residual_network(run, tmp_path):
    (tmp_path / "net.py").write_text(STRANGER)
    namespace: dict = {}
    exec(STRANGER, namespace)
    with nets.seeded():
        save_file(namespace["residual"]().state_dict(), tmp_path / "weights.safetensors")
    found = check(
        run, tmp_path / "weights.safetensors", "--model", f"{tmp_path / 'net.py'}:residual",
        "--data", "digits", "--rescale-check", "--metric", "adaptive_worst",
    )  # fmt: skip
    layer, _ = found["transformations"]["layer"]["changes"]
    # only inside the blocks: what a shortcut passes on can't be rescaled
    assert layer["done"] == [
        "blocks.0.norm × 5, blocks.0.two ÷ 5", "blocks.1.norm × 5, blocks.1.two ÷ 5"
    ]  # fmt: skip
    assert len(found["transformations"]["folding"]["changes"][0]["done"]) == 2
    for kind in ("layer", "neuron", "batchnorm"):
        assert ratios(found, kind, "adaptive_worst") == pytest.approx([1, 1], abs=5e-3)


def test_gelu_says_so(run, tmp_path):
    (tmp_path / "net.py").write_text(STRANGER)
    namespace: dict = {}
    exec(STRANGER, namespace)
    save_file(namespace["gelu"]().state_dict(), tmp_path / "w.safetensors")
    found = check(
        run, tmp_path / "w.safetensors", "--model", f"{tmp_path / 'net.py'}:gelu", "--data",
        "digits", "--rescale-check",
    )  # fmt: skip
    kept = {name for name, one in found["transformations"].items() if one["found"]}
    assert kept == {"permutation"}
    assert found["says"] == [
        "no rescaling was found that leaves the outputs of this network as they are"
    ]


@pytest.mark.slow
def test_resumed_only_with_the_check(run, runs, tmp_path):
    plain = ["sharpness", runs / "mlp", "--top", 1, "--samples", 100, "--out", tmp_path, "--json"]
    assert "rescale_check" not in run(*plain).json["checkpoints"][0]
    again = run(*plain, "--resume", "--rescale-check")
    assert "rescale_check" in again.json["checkpoints"][0]
    assert "taken from" not in again.err


def test_factor_must_be_positive(run, runs):
    assert run("sharpness", runs / "mlp", "--rescale-check", "--rescale-factor", 0).status == 2


def test_ratio_farthest_from_one():
    rows = [{"metrics": {"a": {"ratio": ratio}}} for ratio in (1.5, None, 0.2, 3.0)]
    assert extreme(rows, "a") == 0.2
    assert extreme([], "a") is None


def test_a_rescaled_copy_is_a_fixed_point_of_invariant_metrics():
    case = nets.relu()
    model = rescaled(case.model, case.inputs, 5.0)
    outputs = [nets.evaluated(one)(case.inputs) for one in (case.model, model)]
    torch.testing.assert_close(*outputs)
    one, two = (
        rescale_check(Problem(net, case.loss, case.batches()), ["adaptive_worst"])
        for net in (case.model, model)
    )
    values = [found["metrics"]["adaptive_worst"]["value"] for found in (one, two)]
    assert values[1] == pytest.approx(values[0], rel=1e-8)
    assert one["metrics"]["lambda_max"]["value"] != pytest.approx(
        two["metrics"]["lambda_max"]["value"], rel=0.5
    )


def test_model_comes_back_untouched():
    case = nets.with_state(nets.conv_batchnorm())
    before, copied = nets.state(case.model), copy.deepcopy(case.model)
    rescale_check(Problem(*case.problem), ["sam"])
    assert nets.state(case.model) == before
    assert nets.per_module_modes(case.model) == nets.per_module_modes(copied)


def test_list_tells_invariances_and_radius(run):
    entries = {entry["name"]: entry for entry in run("list", "metrics", "--json").json}
    assert entries["lambda_max"]["invariant_to"] == ["permutation"]
    assert entries["lambda_max"]["radius"] is None
    assert entries["sam"]["radius"] == "rho"
    assert entries["sam"]["radii"] == list(METRICS["sam"].radii)
    text = run("list", "metrics").out
    for entry in METRICS.values():
        assert f"invariant to: {', '.join(entry.invariant_to) or 'nothing'}\n" in text
    assert "radius: rho, a curve over 0.01, 0.02, 0.05, 0.1, 0.2\n" in text
