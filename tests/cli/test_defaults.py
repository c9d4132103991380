"""Defaults of the command line are those of Python: one place for each."""

import dataclasses
import inspect
import re
from typing import Any

import click
import pytest
from ssgd_analysis.cli import compare, connect, landscape, sharpness, study, train

from ssgd_analysis.comparison import compare as compare_groups
from ssgd_analysis.connections import ConnectionSettings
from ssgd_analysis.curvature import Options
from ssgd_analysis.landscapes import LandscapeSettings
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.settings.comparison import (
    ComparisonSettings,
    MeasurementSettings,
    VerdictRule,
)
from ssgd_analysis.settings.study import StudySettings
from ssgd_analysis.sharpness import SharpnessSettings

PAIRS = [
    (landscape.command, LandscapeSettings),
    (sharpness.command, SharpnessSettings),
    (sharpness.command, Options),
    (connect.command, ConnectionSettings),
    (compare.command, ComparisonSettings),
    (compare.command, VerdictRule),
    (compare.command, MeasurementSettings),
    (compare.command, compare_groups),
    (train.command, TrainConfig),
    (study.command, StudySettings),
]
# the command looks for a GPU; Python never chooses a device by itself
MEANT = {(MeasurementSettings, "device"), (TrainConfig, "device")}
WORDS = {"on": True, "off": None, "none": None, "all": None}


def defaults(python: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(python):
        return {n: p.default for n, p in inspect.signature(python).parameters.items()}
    found = {}
    for field in dataclasses.fields(python):
        made = field.default_factory is not dataclasses.MISSING
        found[field.name] = field.default_factory() if made else field.default
    return found


def shared() -> list[tuple[Any, click.Parameter, Any, Any]]:
    """Options that a setting of the same name stands behind: what is passed on, its default."""
    return [
        (python, option, given(command)[option.name], defaults(python)[option.name])
        for command, python in PAIRS
        for option in command.params
        if option.name in defaults(python)
    ]


def given(command: click.Command) -> dict[str, Any]:
    """What the command passes on where nothing is given that it can do without."""
    needed = ["--out", "run"] if command in (train.command, study.command) else ["one", "two"]
    return command.make_context("command", needed).params


def name_of(entry: tuple[Any, click.Parameter, Any, Any]) -> str:
    return f"{entry[0].__name__}.{entry[1].name}"


def test_all_commands_that_have_settings_are_looked_at():
    assert len(shared()) > 50
    assert {python.__name__ for python, *_ in shared()} == {p.__name__ for _, p in PAIRS}


@pytest.mark.parametrize("entry", shared(), ids=name_of)
def test_a_default_is_the_same_on_the_command_line(entry):
    python, option, value, default = entry
    if (python, option.name) in MEANT:
        assert (value, default) == ("auto", "cpu")
    elif value not in (None, (), []):  # else nothing is passed on, and Python's own counts
        assert value == default


@pytest.mark.parametrize("entry", shared(), ids=name_of)
def test_the_help_tells_the_default_that_counts(entry):
    python, option, _, default = entry
    told = re.search(r"\(default: ([^:;,)]*)", getattr(option, "help", None) or "")
    if told is None or (python, option.name) in MEANT or default in (None, (), []):
        return
    word = told[1].strip()
    if isinstance(default, bool) or default is None:
        assert WORDS[word] == default
    elif isinstance(default, int | float):
        assert float(word) == default
    elif isinstance(default, str):
        assert word == default
    else:
        assert word == default[0]


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("directions", ["random", "eigen", "trajectory", "gradient", "vectors"])
def test_landscape_settings_of_both_doors(directions, dims):
    options = given(landscape.command) | {"directions": directions, "dims": dims, "seed": 0}
    options["vectors"] = ["one.npy"] if directions == "vectors" else ()
    assert landscape._settings(options) == LandscapeSettings(directions=directions, dims=dims)
    chosen = LandscapeSettings(directions=directions, dims=dims)
    assert chosen.normalize == ("filter" if directions == "random" else "none")
    assert chosen.points == (41 if dims == 1 else 21)
