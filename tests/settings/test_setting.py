"""One declaration a setting: field, check, option, list and schema follow from it."""

import dataclasses
import json
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner
from ssgd_analysis.cli.main import cli
from ssgd_analysis.cli.options import given, settings_from, settings_options

from ssgd_analysis.errors import InputError
from ssgd_analysis.settings import (
    Settings,
    declarations,
    json_schema,
    make_typed,
    read_assignments,
    setting,
)
from ssgd_analysis.settings.commands import COMMAND_SETTINGS
from ssgd_analysis.settings.sharpness import OPERATOR_NAMES
from ssgd_analysis.settings.study import StudySettings

CLASSES = [cls for classes in COMMAND_SETTINGS.values() for cls in classes.values()]


@dataclass(frozen=True, kw_only=True)
class Made(Settings):
    """A made-up class of settings."""

    name: str = setting(dataclasses.MISSING, "A name.")
    count: int = setting(3, "A count.", minimum=1, maximum=9)
    share: float = setting(0.5, "A share.", above=0, below=1)
    radius: float | None = setting(None, "A radius (default: none).", minimum=0)
    kind: str = setting("round", "A kind.", choices=("round", "square"))
    loud: bool = setting(False, "Say more.")
    quiet: bool = setting(True, "Say less.")
    parts: list[str] = setting(list, "Parts.")
    own: int = 7  # without a declaration: no option, no check


def test_declarations_hold_what_was_declared():
    found = {each.name: each for each in declarations(Made)}
    assert list(found) == ["name", "count", "share", "radius", "kind", "loud", "quiet", "parts"]
    assert (found["count"].kind, found["count"].default, found["count"].optional) == (int, 3, False)
    assert (found["radius"].kind, found["radius"].optional) == (float, True)
    assert (found["parts"].kind, found["parts"].default) == (list, [])
    assert found["kind"].record() == {
        "name": "kind", "type": "str", "default": "round", "choices": ["round", "square"],
        "meaning": "A kind.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "--count 0 should be at least 1"),
        ({"count": 10}, "--count 10 should be at most 9"),
        ({"count": "3"}, "--count '3' has the wrong type: it should be a whole number"),
        ({"count": True}, "--count True has the wrong type"),
        ({"share": 0.0}, "--share 0.0 should be above 0"),
        ({"share": 1}, "--share 1 should be below 1"),
        ({"share": float("nan")}, "--share nan should be finite"),
        ({"radius": -1.0}, "--radius -1.0 should be at least 0"),
        ({"kind": "rund"}, "did you mean 'round'"),
        ({"loud": 1}, "--loud 1 has the wrong type: it should be true or false"),
        ({"parts": "ab"}, "--parts 'ab' has the wrong type"),
        ({"name": None}, "--name None has the wrong type"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_clear_line(wrong, message):
    with pytest.raises(InputError, match=message):
        Made(**{"name": "a", **wrong})


def test_defaults_are_not_shared_between_instances():
    assert Made(name="a").parts is not Made(name="b").parts
    assert Made(name="a", radius=None, count=9).count == 9


@click.command()
@settings_options(Made)
def command(**options):
    click.echo(json.dumps([given(options), dataclasses.asdict(settings_from(Made, options))]))


def run(*arguments: str):
    return CliRunner().invoke(command, arguments)


@pytest.fixture
def run_command():
    """What a command of the package prints."""
    return lambda *arguments: CliRunner().invoke(cli, arguments, catch_exceptions=False).output


def test_options_that_are_not_given_are_left_to_the_declaration():
    passed, settings = json.loads(run("--name", "a").output)
    assert passed == {"name": "a"}
    assert settings == dataclasses.asdict(Made(name="a"))
    passed, settings = json.loads(
        run("--name", "a", "--no-quiet", "--loud", "--parts", "x", "--parts", "y").output
    )
    assert passed == {"name": "a", "quiet": False, "loud": True, "parts": ["x", "y"]}
    assert settings["parts"] == ["x", "y"]


def test_the_help_shows_meaning_default_and_choices():
    text = " ".join(run("--help").output.split())
    for part in (
        "A count (default: 3).", "A share (default: 0.5).", "A radius (default: none).",
        "[round|square]", "--quiet / --no-quiet", "A kind (default: round).",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "many"], "'many' is not a whole number"),
        (["--count", "0"], "at least 1"),
        (["--share", "0"], "above 0"),
        (["--kind", "squar"], "did you mean 'square'?"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(arguments, message):
    found = run("--name", "a", *arguments)
    assert found.exit_code == 2
    assert message in found.output


def test_the_json_schema_has_types_limits_and_choices():
    schema = json_schema(Made)["properties"]
    assert schema["count"] == {
        "type": "integer", "default": 3, "description": "A count.", "minimum": 1, "maximum": 9,
    }  # fmt: skip
    assert schema["share"]["exclusiveMinimum"] == 0
    assert schema["radius"]["type"] == ["number", "null"]
    assert schema["kind"]["enum"] == ["round", "square"]
    assert "default" not in schema["name"]
    assert json_schema(Made)["required"] == ["name"]
    assert {"name", "scale"} <= json_schema(Made, StudySettings)["properties"].keys()


def allowed(schema, value):
    """Whether a schema of one setting allows a value."""
    names = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "array": list}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    typed = any(value is None if k == "null" else isinstance(value, names[k]) for k in kinds)
    limits = [value >= schema["minimum"]] if "minimum" in schema and value is not None else []
    return typed and value in schema.get("enum", [value]) and all(limits)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_schema_allows_its_defaults(cls):
    schema = json_schema(cls)
    for name, each in schema["properties"].items():
        assert name in schema["required"] or allowed(each, each["default"]), name


def test_list_settings_shows_options_and_their_schema(run_command):
    (entry,) = json.loads(run_command("list", "settings", "compare", "--json"))
    assert entry["schema"] == json_schema(*COMMAND_SETTINGS["compare"].values())
    options = {each["option"] for each in entry["settings"]}
    assert {"--metric", "--margin", "--samples"} <= options
    assert not {"--level", "--metrics"} & options
    text = run_command("list", "settings")
    assert all(name in text for classes in COMMAND_SETTINGS.values() for name in classes)
    assert (
        "--margin: Smallest difference that matters, relative to the baseline's mean (def" in text
    )


def test_texts_are_read_as_the_settings_types():
    read = make_typed("made", declarations(Made), {"count": "4", "loud": "true", "share": 0.25})
    assert read == {"count": 4, "loud": True, "share": 0.25}
    with pytest.raises(InputError, match="unknown setting of made 'cuont': did you mean 'count'"):
        make_typed("made", declarations(Made), {"cuont": 1})
    with pytest.raises(InputError, match="count=x: 'x' is not a int"):
        make_typed("made", declarations(Made), {"count": "x"})
    assert read_assignments("--set", ["a=1", "b=x=y", "a=2"]) == {"a": "2", "b": "x=y"}
    with pytest.raises(InputError, match="--set a should be NAME=VALUE"):
        read_assignments("--set", ["a"])


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_of_the_package_pass_their_own_checks(cls):
    needed = {
        each.name: "x" for each in declarations(cls) if each.default is None and not each.optional
    }
    made = cls(**needed)
    assert all(each.meaning.endswith((".", "?")) for each in declarations(cls))
    json.dumps(json_schema(cls))
    assert dataclasses.asdict(made)


def test_the_declared_operators_are_those_of_the_table():
    from ssgd_analysis.curvature import OPERATORS

    assert tuple(OPERATORS) == OPERATOR_NAMES
