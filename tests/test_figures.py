"""The gallery: drawn again it is the same, its recipe names what there is, its page shows all."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image
from ssgd_analysis.cli.main import cli

FIGURES = Path(__file__).parents[1] / "figures"
PAGE = (FIGURES / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def draw():
    spec = importlib.util.spec_from_file_location("gallery", FIGURES / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(path):
    with Image.open(path) as picture:
        return dict(picture.text)


def compare(path):
    """Against the committed picture of this name."""
    old, new = texts(FIGURES / path.name), texts(path)
    assert {k: v for k, v in old.items() if k != "Software"} == {
        k: v for k, v in new.items() if k != "Software"
    }
    before, after = (matplotlib.image.imread(file) for file in (FIGURES / path.name, path))
    # letters of another matplotlib may be a little wider, and then lines of text break elsewhere
    assert np.allclose(before.shape[:2], after.shape[:2], rtol=0.1)
    if old["Software"] == new["Software"]:
        assert before.shape == after.shape
        # the same program: at most the rounding of another processor at the edges of lines;
        # solid lines for dashed ones change 1.4e-3, all moved by one pixel 1e-2
        assert np.abs(before - after).mean() < 1e-3


@pytest.mark.parametrize("name", ["connection", "trajectory"])
def test_a_picture_drawn_again_is_the_committed_one(draw, tmp_path, name):
    paths = [path for path in draw.GALLERY[name](name, tmp_path) if path.suffix == ".png"]
    assert paths
    for path in paths:
        assert texts(path)["Settings"]
        compare(path)


@pytest.mark.slow
def test_the_whole_gallery_is_drawn_again_and_shown(draw, tmp_path):
    draw.main(tmp_path)
    drawn = sorted(tmp_path.glob("*.png"))
    assert {path.name for path in drawn} == {path.name for path in FIGURES.glob("*.png")}
    for path in drawn:
        compare(path)


def test_the_page_shows_every_picture_and_the_script_draws_all_data(draw):
    assert set(re.findall(r"\((\S+\.png)\)", PAGE)) == {p.name for p in FIGURES.glob("*.png")}
    assert {path.stem for path in (FIGURES / "data").iterdir()} == set(draw.GALLERY)


def test_the_data_are_small_and_name_no_machine():
    files = list((FIGURES / "data").iterdir())
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        if path.suffix != ".npz":
            assert not re.search(r'"/\w+/', path.read_text(encoding="utf-8")), path


STUB = """#!/bin/sh
printf '%s\\n' "$@" @ >> "$LOG"
"""
COPY = """#!/bin/sh
for last; do :; done
touch "$last"
"""


def test_the_recipe_calls_commands_that_there_are_and_writes_all_data(tmp_path):
    """Every call's options are parsed by the command itself; nothing is computed."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "bin").mkdir()
    recipe = tmp_path / "figures" / "recipes.sh"
    recipe.write_bytes((FIGURES / "recipes.sh").read_bytes())
    for name, text in (("ssgd-analyze", STUB), ("cp", COPY), ("python3", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    log = tmp_path / "log"
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    known = {**os.environ, "PATH": path, "LOG": str(log)}
    subprocess.run(["bash", recipe], env=known, check=True, timeout=60)

    calls = [call.strip("\n").split("\n") for call in log.read_text().split("@\n") if call]
    assert {call[0] for call in calls} == {
        "study", "landscape", "connect", "sharpness", "train", "compare",
    }  # fmt: skip
    for name, *arguments in calls:
        command = cli.get_command(None, name)
        command.make_context(name, arguments)  # raises for an option that there is not
    written = {file.name for file in (tmp_path / "figures" / "data").iterdir()}
    assert written == {file.name for file in (FIGURES / "data").iterdir()}


def test_the_page_has_the_commands_of_the_recipe():
    script = (FIGURES / "recipes.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    known = " ".join(script.replace(" --resume", "").split())
    told = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", PAGE)]
    calls = [code for code in told if code.startswith(("ssgd-analyze", "--"))]
    assert len(calls) >= 12
    for call in calls:
        assert call in known, call
