"""`compare --group`, and labels of checkpoints, on weights that no run made."""

import json

import pytest
import torch
from torch import nn

NET = """
import torch
from torch import nn

def make():
    return nn.Linear(3, 2)

def load():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return (x[:16], y[:16]), (x[16:], y[16:])
"""
BELONGS = ("--model", "net.py:make", "--data", "net.py:load")
BOTH = ("--group", "A=a-*.pt", "--group", "B=b-*.pt")
METRICS = ("--metric", "sam", "--metric", "test_accuracy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    for seed in range(4):
        torch.manual_seed(seed)
        torch.save(nn.Linear(3, 2).state_dict(), tmp_path / f"{'ab'[seed % 2]}-{seed}.pt")
    return tmp_path


def test_compare_groups_of_files(run, folder):
    asked = ("compare", *BOTH, *BELONGS, *METRICS, "--trained-with", "B=sam", "--baseline", "A")
    found = run(*asked, "--json").json
    assert [group["runs"] for group in found["groups"]] == [
        ["a-0.pt", "a-2.pt"],
        ["b-1.pt", "b-3.pt"],
    ]
    assert [group["method"] for group in found["groups"]] == [None, "sam"]
    (test,) = found["tests"]
    assert test["circular"].startswith("sam trained on a worst case")
    assert found["remarks"][0] == "Without --loss, cross_entropy was assumed for the weights."
    text = run(*asked).out
    assert "It is not known what the weights of A were trained with" in " ".join(text.split())


def test_the_report_says_what_was_assumed(run, folder):
    run("compare", *BOTH, *BELONGS, "--metric", "train_loss", "--out", "out")
    assert json.loads((folder / "out" / "compare.json").read_text())["remarks"]
    assert "was assumed for the weights" in (folder / "out" / "report.html").read_text()


def test_stream_reaches_the_data_of_the_files(run, folder):
    once = "\n\ndef once():\n    return tuple(iter([split]) for split in load())\n"
    (folder / "net.py").write_text(NET + once)
    asked = ("compare", *BOTH, "--model", "net.py:make", "--data", "net.py:once")
    outcome = run(*asked, "--metric", "train_loss", "--stream")
    assert outcome.status == 2
    assert "--stream reads it at every pass" in outcome.error


def test_one_file_a_group_answers(run, folder):
    asked = ("--group", "A=a-0.pt", "--group", "B=b-1.pt", *BELONGS, *METRICS)
    outcome = run("compare", *asked, "--loss", "cross_entropy")
    assert "one seed gives no interval" in outcome.out
    assert "assumed" not in outcome.out


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((), "nothing is given: add runs"),
        (("--group", "A=a-*.pt", *BELONGS), "only the group A is given"),
        ((*BOTH, "--data", "net.py:load"), "need --model"),
        ((*BOTH, "--model", "net.py:make"), "need --data"),
        (("--group", "A=a-*.pt", "--group", "B=c-*.pt", *BELONGS), "no file matches c-*.pt"),
        ((*BOTH, "--group", "B=a-0.pt", *BELONGS), "a-0.pt is given twice"),
        ((*BOTH, *BELONGS, "--group", "B=a-0.pt", "--paired"), "given twice"),
        (("--group", "A=a-*.pt", "--group", "B=b-1.pt", *BELONGS, "--paired"), "as many of B as"),
        ((*BOTH, *BELONGS, "--match-loss"), "--match-by temperature"),
        ((*BOTH, *BELONGS, "--baseline", "C"), "unknown baseline"),
        ((*BOTH, *BELONGS, "--trained-with", "A=sma"), "did you mean"),
        (("a-0.pt",), "give weights as --group LABEL=a-0.pt"),
        (("runs", *BELONGS), "--model belongs to weight files"),
    ],
)
def test_bad_input_writes_nothing(run, folder, asked, words):
    outcome = run("compare", *asked, "--metric", "train_loss", "--out", "out")
    assert outcome.status == 2
    assert words in outcome.error
    assert not (folder / "out").exists()


def test_labels_name_checkpoints(run, folder):
    pair = ("A=a-0.pt", "B=b-1.pt")
    found = run("sharpness", *pair, *BELONGS, "--top", "1", "--probes", "2", "--json").json
    assert [each["checkpoint"] for each in found["checkpoints"]] == ["A", "B"]
    drawn = run("landscape", *pair, *BELONGS, "--dims", "1", "--points", "3", "--json").json
    assert drawn["checkpoints"] == ["A", "B"]
    assert "A=a-0.pt" in drawn["command"]
    line = ("--path", "line", "--points", "3")
    assert run("connect", *pair, *BELONGS, *line, "--json").json["checkpoints"] == ["A", "B"]
    assert "two checkpoints are called 'A'" in run("sharpness", "A=a-0.pt", "A=b-1.pt").error
