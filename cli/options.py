"""Options that several commands share, and the values they accept."""

import contextlib
import dataclasses
import difflib
import functools
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from ssgd_analysis.cli import console

from ssgd_analysis.settings import Declaration, declarations

S = TypeVar("S")


class Number(click.ParamType):
    """A finite number, not below a minimum."""

    def __init__(self, kind: type[int] | type[float], minimum: float = 0, *, above: bool = False):
        self.kind, self.minimum, self.above = kind, minimum, above
        self.name = "N" if kind is int else "F"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse, or say what would be right."""
        need = f"{'above' if self.above else 'at least'} {self.minimum:g}"
        noun = "a whole number" if self.kind is int else "a finite number"
        try:
            number = self.kind(value)
        except ValueError:
            self.fail(f"'{value}' is not {noun}", param, ctx)
        low = number <= self.minimum if self.above else number < self.minimum
        if not math.isfinite(number) or low:
            self.fail(f"{value} should be {noun} {need}", param, ctx)
        return number


COUNT = Number(int, 1)
NATURAL = Number(int, 0)
AMOUNT = Number(float, 0)
POSITIVE = Number(float, 0, above=True)


def settings_options(
    settings: type, without: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One option for each declared setting of a class.

    An option that is not given is passed on as ``None`` (several times: as an empty tuple), so
    that its default is written once, in the declaration.

    Args:
        settings: a dataclass of :func:`ssgd_analysis.settings.setting` fields.
        without: names that get no option.
    """
    declared = [each for each in declarations(settings) if each.option_name]
    made = [_option(each) for each in declared if each.name not in without]

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        return functools.reduce(lambda so_far, option: option(so_far), reversed(made), command)

    return decorated


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given; a text or number several times as a list."""
    named = {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}
    return {key: value for key, value in named.items() if value not in (None, [])}


def settings_from(settings: type[S], given_options: Mapping[str, Any], /, **more: Any) -> S:
    """The settings of a class, from those options that belong to it and were given.

    Args:
        settings: the class.
        given_options: of the command, by name.
        more: fields that are no options.
    """
    names = {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    own = {key: value for key, value in given(given_options).items() if key in names}
    return settings(**own, **more)


def _option(each: Declaration) -> Callable[..., Any]:
    name = f"--{each.option_name}"
    form: dict[str, Any] = {"help": each.help_text, "metavar": each.metavar}
    option = functools.partial(click.option, default=None, **form)
    if each.kind is bool:
        flags = f"{name}/--no-{each.option_name}" if each.default else name
        return option(flags, each.name, is_flag=True)
    if each.choices:
        return option(name, each.name, type=Choice(each.choices))
    if each.kind in (int, float):
        above = each.above is not None
        low = each.above if each.above is not None else each.minimum
        low = -math.inf if low is None else low
        return option(name, each.name, type=Number(each.kind, low, above=above))
    if each.kind is list:
        return option(name, each.name, multiple=True)
    return option(name, each.name)


class Choice(click.Choice):
    """One of several words; a mistyped one is answered with the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse, or say what would be right."""
        if value not in self.choices:
            near = difflib.get_close_matches(value, self.choices, n=1, cutoff=0.55)
            hint = f": did you mean '{near[0]}'?" if near else ""
            self.fail(f"'{value}' is not one of {', '.join(self.choices)}{hint}", param, ctx)
        return value


class Bytes(click.ParamType):
    """An amount of memory: a number of bytes, or one with K, M, G (powers of 1024)."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse, or say what would be right."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?)(?:i?B)?", value.strip(), re.IGNORECASE)
        factor = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
        size = int(float(found[1]) * factor[found[2].upper()]) if found else 0
        if size < 1:
            self.fail(f"'{value}' is not an amount of memory: write it like 500M or 2G", param, ctx)
        return size


def example(line: str) -> str:
    """The end of a help page: one line that can be copied, so it is never wrapped."""
    return f"\b\nExample: {line}"


def computing(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command that computes has in common.

    Adds ``--seed``, ``--device`` and ``--data-dir``; resolves the device; and keeps stdout for
    the answer: what a user's model prints goes to stderr.
    """

    @click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="Folder for data files (default: the user's cache).",
    )
    @click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto).")
    @click.option(
        "--seed",
        type=NATURAL,
        default=0,
        help="Random seed; the same seed repeats the result (default: 0).",
    )
    @functools.wraps(command)
    def run(**options: Any) -> None:
        from ssgd_analysis.devices import resolve_device

        options["device"] = resolve_device(options["device"])
        with answering():
            command(**options)

    return run


@contextlib.contextmanager
def answering() -> Any:
    """Stdout belongs to the command's answer; all other printing goes to stderr."""
    with console.answers_to(sys.stdout), contextlib.redirect_stdout(sys.stderr):
        yield


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: one JSON document on stdout and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def checkpoint_options(
    splits: Sequence[str] = ("train", "test", "val"),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Checkpoints, and what a foreign weight file belongs to.

    Args:
        splits: the choices of ``--split``; none: there is no such option.
    """
    options = [
        click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT..."),
        click.option("--model", help="Model of a foreign weight file: name or reference."),
        click.option("--data", help="Data of a foreign weight file: name or reference."),
        click.option("--loss", help="Loss: name or reference (default: the run's)."),
        click.option("--count", help="Reference of a function that counts a batch's examples."),
        click.option(
            "--weights",
            metavar="KEY",
            help="Which weights of a foreign file, e.g. state_dict_ema (default: the plain ones).",
        ),
        *[
            click.option(
                "--split",
                type=Choice(list(splits)),
                default="train",
                help="Examples to use (default: train).",
            )
        ][: len(splits)],
        click.option("--samples", type=COUNT, help="Use the first N examples (default: all)."),
        click.option("--batch-size", type=COUNT, help="Examples per forward pass."),
        click.option(
            "--dtype",
            type=Choice(["float32", "float64"]),
            default="float32",
            help="Type of weights and data (default: float32).",
        ),
    ]

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        return functools.reduce(lambda made, option: option(made), reversed(options), command)

    return decorated


def command_line(name: str, checkpoints: Sequence[str], values: Mapping[str, Any]) -> str:
    """A command with its options as text that a shell reads.

    Args:
        name: of the command.
        checkpoints: its arguments.
        values: of its options by name, with _ for -; true is a flag, a tuple an option that is
            given several times, and ``None`` or false is left out.
    """
    parts = ["ssgd-analyze", name, *checkpoints]
    for key, value in values.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            parts += [option] if value else []
        elif isinstance(value, tuple):
            parts += [text for entry in value for text in (option, str(entry))]
        elif value is not None:
            parts += [option, str(value)]
    return shlex.join(parts)


def load_checkpoints(names: tuple[str, ...], options: dict[str, Any]) -> list[Any]:
    """Open all checkpoints with a command's options; nothing is computed before all are open."""
    import torch

    from ssgd_analysis.errors import InputError
    from ssgd_analysis.runs.checkpoint import load_checkpoint

    loaded: dict[str, Any] = {}
    opened = [
        load_checkpoint(
            name,
            model=options["model"],
            data=options["data"],
            loss=options["loss"],
            count=options["count"],
            weights=options["weights"],
            data_dir=options["data_dir"],
            device=options["device"],
            dtype=getattr(torch, options["dtype"]),
            loaded=loaded,
        )
        for name in names
    ]
    if options["weights"] and all(checkpoint.run is not None for checkpoint in opened):
        raise InputError("--weights chooses in foreign weight files: a run has one set of weights")
    return opened
