"""Several processes, one training: torchrun with gloo, beside one process."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys, torch
from torch import nn
from ssgd_analysis.methods import Passes
from ssgd_analysis.ranks import launched

with launched() as ranks:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model.unused = nn.Parameter(torch.zeros(2).double())
    inputs, targets = torch.randn(7, 3).double(), torch.randint(2, (7,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    passes = Passes(model, nn.functional.cross_entropy, optimizer, batch_size=7, ranks=ranks)
    losses = [passes.backward((inputs, targets), share=0.5) for _ in range(2)]
    slopes = [p.grad for p in model.parameters() if p.grad is not None]
    assert passes.world == 2 and len(slopes) == 6
    torch.save((losses, slopes, list(model.buffers())), f"{sys.argv[1]}/{passes.rank}.pt")
"""


def _run(arguments: list[str], count: int) -> str:
    """The standard output of a command under torchrun."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = [*start, str(count), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("method", ["s-sgd", "sam", "adam"])
def test_two_processes_train_as_one(tmp_path, method):
    """No BatchNorm: equal to rounding; and the second process writes and says nothing."""
    common = ["--method", method, "--data", "two_moons", "--model", "mlp", "--epochs", "2"]
    common += ["--batch-size", "63", "--device", "cpu", "--json"]
    outputs = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        call = ["--module", "ssgd_analysis.cli.main", "train", *common, "--out", str(folder)]
        outputs[count] = json.loads(_run(call, count))
    one, two = (load_file(tmp_path / str(count) / "final.safetensors") for count in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert outputs[1]["final"]["gradients"] == outputs[2]["final"]["gradients"]
    again = ["--module", "ssgd_analysis.cli.main", "train", "--out", str(tmp_path / "2")]
    assert json.loads(_run([*again, "--resume", "--json"], 2))["final"] == outputs[2]["final"]


@pytest.mark.slow
def test_a_pass_of_two_processes_is_two_micro_batches(tmp_path):
    """With BatchNorm each normalises its part; running statistics are the weighted mean."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    _run([str(script), str(tmp_path)], 2)
    (losses, slopes, buffers), other = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    torch.testing.assert_close((losses, slopes, buffers), other, rtol=0, atol=0)

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    ).double()
    inputs, targets = torch.randn(7, 3).double(), torch.randint(2, (7,))
    features = model[0](inputs)
    parts = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    means = [features[:4].mean(0), features[4:].mean(0)]
    loss = sum(len(x) / 7 * torch.nn.functional.cross_entropy(model(x), y) for x, y in parts)
    loss.backward()
    assert losses == pytest.approx([loss.item()] * 2, rel=1e-12)
    for found, parameter in zip(slopes, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-10, atol=1e-13)
    batch = (4 * means[0] + 3 * means[1]).detach() / 7
    torch.testing.assert_close(buffers[0], 0.1 * batch * (1 + 0.9))
