"""The documents are executed, so that they cannot rot."""

import dataclasses
import doctest
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from method_checks import methods_without_docs
from ssgd_analysis.cli.main import COMMANDS, cli

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.methods import METHODS
from ssgd_analysis.optimizers.table import OPTIMIZERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONCEPTS = sorted((DOCS / "concepts").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    *sorted(DOCS.glob("*.md")),
    *CONCEPTS,
    DOCS / "studies" / "README.md",
    ROOT / "figures" / "README.md",
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may name after ``#``: the headings as mkdocs spells them, and explicit ids."""
    text = page.read_text(encoding="utf-8")
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_anchors_and_pictures_exist(page):
    text = page.read_text(encoding="utf-8")
    assert "<<<<<<<" not in text, "a merge was left unfinished"
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_the_site_lists_every_page():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    listed = set(re.findall(r": (\S+\.md)$", nav, re.MULTILINE))
    pages = [*DOCS.glob("*.md"), *CONCEPTS, DOCS / "studies" / "README.md"]
    assert listed == {page.relative_to(DOCS).as_posix() for page in pages}


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_the_examples_of_the_concept_pages_are_true(page):
    assert not doctest.testfile(str(page), module_relative=False).failed


def test_readme_opens_with_the_picture_and_the_two_commands():
    start = README[:1000]
    assert start.index("figures/digits.png") < start.index("make demo") < start.index("make test")


def test_readme_names_every_command_and_room():
    for command in COMMANDS:
        assert f"| `{command}` |" in README
    rooms = [p.name for p in (ROOT / "ssgd_analysis").iterdir() if (p / "__init__.py").is_file()]
    tops = ["cli", "examples", "figures", "benchmarks", "docs", "tests"]
    for room in [*rooms, *tops]:
        assert f"{room}/" in README, room


def documented_metrics() -> set[str]:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^### (\w+)$", text, re.MULTILINE))


def test_docs_name_every_method_and_metric():
    methods = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert methods_without_docs() == set()
    assert documented_metrics() == set(METRICS)
    for field in dataclasses.fields(METHODS["s-sgd"].Settings):
        assert field.name in methods


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """An empty folder with the ``net.py`` of README in it, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    script = next(block for block in blocks("python") if block.startswith("# net.py"))
    (tmp_path / "net.py").write_text(script, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("net", None)


def session() -> list[str]:
    """The calls of README's session, one a line."""
    return next(block for block in blocks("sh") if "--out runs/sgd" in block).strip().splitlines()


def test_readmes_session_names_commands_and_options_that_there_are():
    (weights,) = [block for block in blocks("sh") if "--group" in block]
    for line in [*session(), *weights.strip().splitlines()]:
        name, *arguments = shlex.split(line)[1:]
        cli.get_command(None, name).make_context(name, arguments)  # raises for what there is not


def test_readmes_session_works_in_an_empty_folder(readers_folder, run):
    for line in session():
        outcome = run(*shlex.split(line)[1:])
        assert outcome.status == 0, (line, outcome.err)
    assert (readers_folder / "report" / "report.html").is_file()


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


def test_readmes_python_runs_as_printed(readers_folder, run):
    for method in ("sgd", "s-sgd"):
        names = "--model net.py:make --data net.py:load --epochs 2 --save-every 1 --seeds 2"
        run("train", "--method", method, *names.split(), "--out", f"runs/{method}")
    names: dict[str, object] = {}
    for block in blocks("python"):
        if not block.startswith("# net.py"):
            exec(block, names)
    assert names["Hv"].shape == (names["problem"].n_parameters,)
    assert len(names["spectrum"].largest) == 5
    assert (readers_folder / "plane" / "landscape.json").is_file()


def test_help_states_the_optimizers_own_defaults(run):
    """``--help`` must not import torch, so it repeats what the optimizers declare."""
    text = " ".join(run("train", "--help").out.split())
    assert f"default: {OPTIMIZERS['sgd'].lr:g}" in text
    assert f"sgd {OPTIMIZERS['sgd'].momentum:g}, rmsprop {OPTIMIZERS['rmsprop'].momentum:g}" in text


def test_the_page_of_settings_is_made_from_their_declarations():
    """``python docs/make_options.py`` makes it again."""
    made = runpy.run_path(str(DOCS / "make_options.py"))["page"]()
    assert (DOCS / "options.md").read_text(encoding="utf-8") == made
