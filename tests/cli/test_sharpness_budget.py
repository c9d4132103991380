"""`sharpness` within a time budget, resumed with vectors, and twice in other processes."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

USER = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(32, 3, generator=g)
    return (x, (x[:, 0] > 0).long()), (x, (x[:, 0] > 0).long())

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)
"""


@pytest.fixture
def user(tmp_path):
    """Options that name a stranger's model, data and loss, and a weight file before them."""
    file = tmp_path / "user.py"
    file.write_text(USER)
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).state_dict(),
               tmp_path / "w.pt")  # fmt: skip
    names = [f"--{kind}={file}:{kind}" for kind in ("model", "data", "loss")]
    return [str(tmp_path / "w.pt"), *names]


def test_a_plan_is_recalled_by_another_process(user, tmp_path):
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        call = [sys.executable, "-m", "ssgd_analysis.cli.main", "sharpness", *user, "--plan"]
        done = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    plans = list((tmp_path / "cache/ssgd-analysis/plans").iterdir())
    assert len(plans) == 1  # the second call found the first one's


def test_vectors_are_saved_where_the_kept_record_has_none(user, tmp_path, run):
    out = tmp_path / "out"
    quick = ("--out", out, "--top", 2, "--probes", 4, "--product", "graph")
    assert run("sharpness", *user, *quick).status == 0
    assert not list(out.glob("vectors-*"))
    again = ("sharpness", *user, *quick, "--resume", "--save-vectors")
    record = run(*again, "--json").json["checkpoints"][0]
    assert record["vectors"] == str(out / "vectors-000.safetensors")
    assert len(load_file(record["vectors"])) == 2 * 4
    assert "taken from" in run(*again).err


def test_a_time_budget_leaves_nothing_out_silently(user, run):
    options = ["--time-budget", "1e-6", "--metric", "expected", "--per-layer", "--rescale-check"]
    record = run("sharpness", *user, *options, "--json").json["checkpoints"][0]
    assert record["metrics"]["expected"]["value"] is None
    for entry in (record["metrics"]["expected"], record["rescale_check"], *record["layers"]):
        assert "time budget" in entry["why"]
    said = run("sharpness", *user, *options)
    assert "no time" in said.out
    assert "metric expected: the time budget ended before it was measured" in said.err


def test_a_trace_that_misses_its_tolerance_says_so(user, run):
    found = run("sharpness", *user, "--trace-tol", "1e-9", "--top", 1, "--product", "graph")
    assert "--trace-tol is not met" in found.err
    assert "trace: 95% interval [" in found.out
    assert "negative eigenvalues (below -" in found.out


def test_covariance_by_layer_is_refused_before_anything_is_opened(run):
    found = run("sharpness", "nowhere.pt", "--operator=covariance", "--per-layer")
    assert found.status == 2
    assert "per-layer curvature needs --operator" in found.err
