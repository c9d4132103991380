"""Losses and modules of users, from the command line: the split's loss, counts, notes, adapters."""

import pytest
from safetensors.torch import load_file

SOURCE = """
import torch
import torch.nn.functional as F
from torch import nn


class Adapter(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4), requires_grad=False)
        self.a, self.b = (nn.Parameter(torch.randn(*s) / 2) for s in ((2, 4), (8, 2)))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (self.b @ self.a) * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x):
        own = F.linear(x, self.weight)
        return own if self.merged else own + F.linear(F.linear(x, self.a), self.b)


def net():
    return nn.Sequential(Adapter(), nn.Tanh(), nn.Linear(8, 3))


def data():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
    x, y = x[y.argsort()], y.sort().values
    y[::7] = -100
    return (x, y), (x[::2], y[::2])


weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0]))


def by_hand(outputs, targets):
    each = F.cross_entropy(outputs, targets, reduction="none")
    return each.sum() / (targets >= 0).sum().clamp(min=1)


def summed(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="sum")


def halves(batch):
    return len(batch[1]) // 2
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


@pytest.fixture
def trained(source, tmp_path, run):
    def train(loss, *more):
        out = tmp_path / "run"
        outcome = run(
            *("train", "--method", "s-sgd", "--model", f"{source}:net", "--data", f"{source}:data"),
            *("--loss", f"{source}:{loss}", "--batch-size", 20, "--epochs", 2, "--save-every", 1),
            *("--out", out, *more),
        )
        return out, outcome

    return train


def test_the_batch_size_changes_nothing_for_torchs_losses(trained, run):
    out, outcome = trained("weighted")
    assert outcome.status == 0, outcome.err
    found = []
    for size in (60, 7):
        for operator in ("hessian", "fisher"):
            done = run(
                *("sharpness", out, "--operator", operator, "--batch-size", size, "--top", 1),
                *("--dtype", "float64", "--metric", "expected", "--probes", 4, "--json"),
            )
            record = done.json["checkpoints"][0]
            assert record["notes"] == []
            assert record["checks"]["difference"] < 1e-5
            numbers = [record["loss"], record["accuracy"], record["eigenvalues"][0]["value"]]
            found.append((operator, [*numbers, record["metrics"]["expected"]["value"]]))
    for operator, numbers in found[2:]:
        assert numbers == pytest.approx(dict(found[:2])[operator], rel=1e-7)
    # an adapter that merges itself in eval() was trained and saved unmerged
    first, *_, last = sorted((out / "checkpoints").iterdir())
    assert (load_file(first)["0.weight"] == load_file(last)["0.weight"]).all()
    assert (load_file(first)["0.a"] != load_file(last)["0.a"]).any()


def test_a_number_that_belongs_to_the_batches_says_so_everywhere(trained, run, source, tmp_path):
    out, outcome = trained("by_hand")
    assert outcome.status == 0, outcome.err
    arguments = ("sharpness", out, "--batch-size", 25, "--top", 1, "--probes", 4)
    table = run(*arguments).out
    assert "Note: the loss of a batch is not the mean of its examples' losses" in table
    assert "belong to batches of 10 to 25 examples" in table
    assert len(run(*arguments, "--json").json["checkpoints"][0]["notes"]) == 1
    plane = (
        "landscape",
        out,
        "--dims",
        1,
        "--points",
        3,
        "--no-curvature",
        "--out",
        tmp_path / "plane",
    )
    assert "belong to batches" in run(*plane, "--json").json["notes"][0]
    path = ("connect", out, out, "--path", "line", "--points", 3, "--out", tmp_path / "path")
    assert "belong to batches" in run(*path, "--json").json["notes"][0]


def test_a_count_by_reference_says_what_an_example_is(trained, run, source):
    out, outcome = trained("by_hand", "--count", f"{source}:halves")
    assert outcome.status == 0, outcome.err
    arguments = ("sharpness", out, "--top", 1, "--probes", 4, "--batch-size", 20, "--json")
    assert run(*arguments).json["checkpoints"][0]["n_samples"] == 30  # the run's
    bad = run(*arguments, "--count", f"{source}:nothing")
    assert bad.status == 2
    assert "count reference" in bad.error


def test_a_sum_is_not_trained(trained):
    out, outcome = trained("summed")
    assert outcome.status == 2
    assert "sum over the batch" in outcome.error
    assert not out.exists()
