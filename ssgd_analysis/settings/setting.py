"""One declaration for each setting: its default, its meaning, and what it may be.

The dataclass field, the command line's option, ``list``, the tables in the documents and the JSON
Schema all come from it.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ssgd_analysis.errors import InputError, unknown


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    metavar: str | None = None,
    option: str | None = None,
) -> Any:
    """A dataclass field with its declaration.

    Args:
        default: its default. ``list`` stands for an empty one, and with ``dataclasses.MISSING``
            the setting must be given.
        meaning: one sentence. It may end with ``(default: …)`` where the plain default would
            not tell enough.
        choices: the texts that it may be.
        minimum: the smallest number that is allowed.
        maximum: the largest number that is allowed.
        above: every allowed number is larger.
        below: every allowed number is smaller.
        metavar: what the help page shows for the value.
        option: its name on the command line, where that is not the field's with - for _; empty:
            it is no option.
    """
    limits = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    texts = {"meaning": meaning, "metavar": metavar, "option": option}
    metadata = {"choices": tuple(choices), **texts, **limits}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if default is list:
        return dataclasses.field(default_factory=list, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Declaration:
    """What is known of one setting.

    Args:
        name: of the dataclass field.
        kind: ``int``, ``float``, ``bool``, ``str``, ``list`` or ``dict``.
        optional: whether it may be ``None``.
        default: its default.
        meaning: one sentence.
        choices: the texts that it may be; empty: any.
        minimum: see :func:`setting`, as the other limits.
        maximum: of numbers.
        above: of numbers.
        below: of numbers.
        metavar: what the help page shows for the value.
        option: its name on the command line, where that is not the field's with - for _; empty:
            it is no option.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    metavar: str | None = None
    option: str | None = None

    @property
    def required(self) -> bool:
        """Whether it has no default and must be given."""
        return self.default is None and not self.optional

    @property
    def option_name(self) -> str:
        """Its name on the command line, without the dashes in front; empty: it is no option."""
        return self.name.replace("_", "-") if self.option is None else self.option

    @property
    def help_text(self) -> str:
        """The meaning, with the default where the meaning does not state it."""
        stated = "(default" in self.meaning or self.default in (None, "", [])
        if stated or self.kind is bool:
            return self.meaning
        value = f"{self.default:g}" if isinstance(self.default, float) else self.default
        return f"{self.meaning.removesuffix('.')} (default: {value})."

    def fault(self, value: Any) -> str:
        """What is wrong with a value of the right type; empty if nothing is."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return ""
        if not math.isfinite(value):
            return "should be finite"
        for limit, holds, words in (
            (self.minimum, lambda low: value >= low, "at least"),
            (self.maximum, lambda high: value <= high, "at most"),
            (self.above, lambda low: value > low, "above"),
            (self.below, lambda high: value < high, "below"),
        ):
            if limit is not None and not holds(limit):
                return f"should be {words} {limit:g}"
        return ""

    def record(self) -> dict[str, Any]:
        """The declaration as ``list`` prints it."""
        return {
            "name": self.name,
            "type": self.kind.__name__,
            "default": self.default,
            "choices": list(self.choices),
            "meaning": self.meaning,
        }

    def schema(self) -> dict[str, Any]:
        """The declaration in JSON Schema."""
        names = {int: "integer", float: "number", bool: "boolean", str: "string"}
        kind = names.get(self.kind, "array" if self.kind is list else "object")
        limits = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
            "enum": [*self.choices, *([None] if self.optional else [])] if self.choices else None,
        }
        return {
            "type": [kind, "null"] if self.optional else kind,
            **({} if self.required else {"default": self.default}),
            "description": self.meaning,
            **{key: value for key, value in limits.items() if value is not None},
        }


def declarations(cls: type) -> list[Declaration]:
    """The settings of a dataclass whose fields were made by :func:`setting`, in order."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if "meaning" not in field.metadata:
            continue
        kind, optional = _kind(hints[field.name])
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        elif default is dataclasses.MISSING:
            default = None
        found.append(Declaration(field.name, kind, optional, default, **field.metadata))
    return found


def json_schema(*classes: type) -> dict[str, Any]:
    """The JSON Schema of dataclasses of settings, of several as one object.

    Example:
        >>> from ssgd_analysis.settings.connection import ConnectionSettings
        >>> json_schema(ConnectionSettings)["properties"]["bn"]["enum"]
        ['recalibrate', 'frozen']
    """
    declared = [each for cls in classes for each in declarations(cls)]
    return {
        "type": "object",
        "properties": {each.name: each.schema() for each in declared},
        "required": [each.name for each in declared if each.required],
        "additionalProperties": False,
    }


def markdown_table(cls: type) -> str:
    """The settings of a dataclass as a table for the documents."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for each in declarations(cls):
        kind = " \\| ".join(each.choices) if each.choices else each.kind.__name__
        default = "" if each.default in (None, "", []) else f"`{each.default}`"
        rows.append(f"| `{each.name}` | {kind} | {default} | {each.meaning} |")
    return "\n".join(rows)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that are checked against their declarations when they are made.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.
    """

    OPTIONS: ClassVar[bool] = True  # whether errors write --name value, or name=value

    def __post_init__(self) -> None:
        for each in declarations(type(self)):
            self._check(each, getattr(self, each.name))

    def _check(self, each: Declaration, value: Any) -> None:
        if value is None and each.optional:
            return
        option = each.option_name
        if not is_kind(each.kind, value):
            if self.OPTIONS:
                raise InputError(
                    f"--{option} {value!r} has the wrong type: it should be {_words(each.kind)}"
                )
            raise InputError(f"{each.name}={value!r} is not a {each.kind.__name__}")
        given = f"--{option} {value}" if self.OPTIONS else f"{each.name}={value}"
        if each.choices and value not in each.choices:
            if self.OPTIONS:
                raise unknown(option, str(value), each.choices)
            raise InputError(f"{given} should be one of {', '.join(each.choices)}")
        if fault := each.fault(value):
            raise InputError(f"{given} {fault}")


def is_kind(kind: Any, value: Any) -> bool:
    """Whether a value is of a kind; whole numbers are also floats, booleans are no numbers."""
    allowed = (int, float) if kind is float else (kind,)
    return isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)


def make_typed(
    owner: str, declared: Sequence[Declaration], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Values by name, texts among them read as the settings' types.

    Args:
        owner: whose settings they are, for errors; e.g. ``"s-sgd"``.
        declared: the settings that there are.
        values: by name.

    Raises:
        InputError: an unknown name, or a value of another type.
    """
    by_name = {each.name: each for each in declared}
    typed = {}
    for key, value in values.items():
        if key not in by_name:
            raise unknown(f"setting of {owner}", key, by_name)
        kind = by_name[key].kind
        try:
            typed[key] = _read(kind, value)
        except (ValueError, KeyError):
            raise InputError(f"{key}={value}: '{value}' is not a {kind.__name__}") from None
    return typed


def read_assignments(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Names and texts of ``NAME=VALUE``; the last of a name counts.

    Args:
        option: what they were given with, for errors.
        texts: the assignments.

    Raises:
        InputError: one is not of that form.

    Example:
        >>> read_assignments("--set", ["rho=0.05"])
        {'rho': '0.05'}
    """
    for text in texts:
        if "=" not in text:
            raise InputError(f"{option} {text} should be NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _read(kind: Any, value: Any) -> Any:
    """The value as ``kind``; raises ValueError or KeyError where it is something else."""
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    if not is_kind(kind, value):
        raise ValueError
    return kind(value)


def _kind(hint: Any) -> tuple[type, bool]:
    """The type that an annotation stands for, and whether ``None`` is allowed."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [typing.get_origin(option) or option for option in options if option is not type(None)]
    return kinds[0], len(kinds) < len(options)


def _words(kind: type) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, f"a {kind.__name__}")
