"""The documents are executed, so that they cannot rot."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import torch
from ssgd_analysis.cli.main import COMMANDS

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.methods import METHODS
from ssgd_analysis.optimizers.table import OPTIMIZERS
from ssgd_analysis.runs import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "figures" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_opens_with_the_picture_and_the_two_commands():
    start = README[:700]
    assert start.index("figures/digits.png") < start.index("make demo") < start.index("make test")


def test_readme_names_every_command_and_room():
    for command in COMMANDS:
        assert f"| `{command}` |" in README
    rooms = [p.name for p in (ROOT / "ssgd_analysis").iterdir() if (p / "__init__.py").is_file()]
    tops = ["cli", "figures", "benchmarks", "docs", "tests"]
    for room in [*rooms, *tops]:
        assert f"{room}/" in README, room


def test_docs_name_every_method_and_metric():
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in methods for name in METHODS)
    assert set(re.findall(r"^### (\w+)$", metrics, re.MULTILINE)) == set(METRICS)
    for field in dataclasses.fields(METHODS["s-sgd"].Settings):
        assert field.name in methods


def test_the_first_session_works_in_an_empty_folder(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    session = next(block for block in blocks("sh") if "runs/sgd-0" in block)
    for line in session.strip().splitlines():
        outcome = run(*shlex.split(line)[1:])
        assert outcome.status == 0, (line, outcome.err)
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "study"])
def test_the_example_of_every_help_page_works(tmp_path, monkeypatch, run, command):
    monkeypatch.chdir(tmp_path)
    text = run(command, "--help").out.strip().splitlines()[-1].partition("Example: ")[2]
    loop = re.match(r"for m in (.*?); do for s in (.*?); do (.*?); done; done; (.*)", text)
    if loop:  # the shell loop of `compare`
        lines = [
            loop[3].replace("$m", m).replace("$s", s)
            for m in loop[1].split()
            for s in loop[2].split()
        ]
        lines.append(loop[4])
    else:
        lines = text.split(" && ")
    for line in lines:
        outcome = run(*shlex.split(line)[1:])
        assert outcome.status == 0, (line, outcome.err)


def test_the_optimizer_snippet_runs():
    model = torch.nn.Linear(4, 2)
    names = {
        "torch": torch,
        "model": model,
        "loss_fn": torch.nn.functional.cross_entropy,
        "batches": [(torch.randn(5, 4), torch.randint(2, (5,)))] * 2,
    }
    before = model.weight.detach().clone()
    exec(next(block for block in blocks("python") if "SSGD" in block), names)
    assert not torch.equal(model.weight, before)


def test_the_curvature_snippet_runs():
    model = torch.nn.Linear(4, 2)
    names = {
        "torch": torch,
        "model": model,
        "loss_fn": torch.nn.functional.cross_entropy,
        "batches": [(torch.randn(5, 4), torch.randint(2, (5,)))] * 2,
        "v": torch.randn(10),
    }
    exec(next(block for block in blocks("python") if "HessianOperator" in block), names)
    assert names["Hv"].shape == (10,)
    assert len(names["spectrum"].largest) == 5


def test_help_states_the_true_defaults(run):
    """--help must not import torch, so it repeats the defaults; here they are compared."""
    text = " ".join(run("train", "--help").out.split())
    for field in dataclasses.fields(TrainConfig):
        option = "--" + field.name.replace("_", "-")
        found = re.search(rf"{option} [^()]*\(default: ([^,)]*)", text)
        if found and type(field.default) in (int, float):
            assert float(found[1]) == field.default, option
        elif found and type(field.default) is str:
            assert found[1] in ("auto", field.default), option
    assert f"default: {OPTIMIZERS['sgd'].lr:g}" in text
    assert f"sgd {OPTIMIZERS['sgd'].momentum:g}, rmsprop {OPTIMIZERS['rmsprop'].momentum:g}" in text
