"""The table of right and wrong tools: its truth is true, and two of its rows hold."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

ROWS = ["transformer, pre-LayerNorm", "weight norm, old hook"]


@pytest.fixture
def correctness(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    yield importlib.import_module("correctness")
    for name in ("correctness", "everyday"):
        del sys.modules[name]


def test_the_truth_of_a_linear_model_is_its_second_moment(correctness):
    net = replace(
        correctness.NETS[0],
        model=lambda: nn.Linear(3, 1, bias=False),
        data=lambda: (torch.randn(8, 3), torch.randn(8, 1)),
        loss=nn.MSELoss,
    )
    model, _, ((x, y),) = net.make(torch.float64)
    loss, matrix = correctness.truth(net)
    assert loss == pytest.approx((model(x) - y).square().mean().item(), rel=1e-12)
    torch.testing.assert_close(matrix, 2 * x.T @ x / len(x), rtol=1e-9, atol=1e-9)


def test_ours_is_right_and_wrong_numbers_are_told(correctness, monkeypatch, capsys, tmp_path):
    place = tmp_path / "found.json"
    arguments = ["--tools", "ours", "PyHessian", "--json", str(place), "--nets", *ROWS]
    monkeypatch.setattr(sys, "argv", ["correctness.py", *arguments])
    correctness.main()
    table = capsys.readouterr().out.splitlines()
    rows = json.loads(place.read_text())["rows"]
    assert [row["net"] for row in rows] == ROWS
    for row, line in zip(rows, table[2:], strict=False):
        assert line.startswith(f"| {row['net']} | {row['parameters']} | ")
        assert row["truth"] < 1e-8  # a matrix of differences is symmetric but for its error
        assert row["tools"]["ours"]["float64"]["error"] <= 1e-6
        assert row["tools"]["ours"]["float32"]["error"] <= 1e-4
        assert row["measure"]["error"] <= 1e-6
        assert row["measure"]["trace"] < 5
    attention, norm = (row["tools"]["PyHessian"]["float64"] for row in rows)
    assert "fails" in attention  # fused attention has no second derivative
    assert attention["error"] <= 1e-6  # without it
    assert norm["error"] > 0.1  # torch's weight norm has a wrong one
    assert "**0.4**" in table[3]
