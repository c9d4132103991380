"""``ssgd-analyze list``."""

import inspect
from collections.abc import Callable
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import Choice, example, json_option


def _methods() -> list[dict[str, Any]]:
    from ssgd_analysis.methods import METHODS
    from ssgd_analysis.methods.base import describe_settings

    return [
        {"name": name, "summary": method.summary(), "settings": describe_settings(method)}
        for name, method in METHODS.items()
    ]


def _models() -> list[dict[str, Any]]:
    from ssgd_analysis.models import MODELS

    listed = [{"name": name, "summary": entry.summary} for name, entry in MODELS.items()]
    return [
        *listed,
        {"name": "torchvision:NAME", "summary": "any torchvision classifier, untrained"},
        {"name": "timm:NAME", "summary": "any model of timm, untrained (extra timm)"},
        {
            "name": "hf:FOLDER",
            "summary": "the model of transformers that FOLDER/config.json describes (extra hf)",
        },
    ]


def _data() -> list[dict[str, Any]]:
    from ssgd_analysis.data import DATA

    return [{"name": name, "summary": entry.summary} for name, entry in DATA.items()]


def _metrics() -> list[dict[str, Any]]:
    from ssgd_analysis.flatness import METRICS

    return [
        {
            "name": name,
            "summary": metric.summary,
            "invariant_to": list(metric.invariant_to),
            "radius": metric.radius or None,
            "radii": list(metric.radii),
            "flatter": metric.flatter,
            "needs": list(metric.needs),
            "defaults": metric.defaults,
        }
        for name, metric in METRICS.items()
    ]


def _optimizers() -> list[dict[str, Any]]:
    from ssgd_analysis.optimizers.table import OPTIMIZERS, PREFIX

    listed = [{"name": name, "summary": entry.summary} for name, entry in OPTIMIZERS.items()]
    others = {"name": f"{PREFIX}NAME", "summary": "most of the package pytorch-optimizer"}
    return [*listed, others]


def _studies() -> list[dict[str, Any]]:
    from ssgd_analysis.studies import list_studies

    return list_studies()


def _systems() -> list[dict[str, Any]]:
    return []  # there are none yet


def _settings() -> list[dict[str, Any]]:
    from ssgd_analysis.settings import declarations, json_schema
    from ssgd_analysis.settings.commands import COMMAND_SETTINGS

    return [
        {
            "name": command,
            "summary": f"settings of `ssgd-analyze {command}`, in Python {', '.join(classes)}",
            "settings": [
                {**each.record(), "meaning": each.help_text, "option": f"--{each.option_name}"}
                for cls in classes.values()
                for each in declarations(cls)
                if each.option_name
            ],
            "schema": json_schema(*classes.values()),
        }
        for command, classes in COMMAND_SETTINGS.items()
    ]


LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "methods": _methods,
    "models": _models,
    "data": _data,
    "metrics": _metrics,
    "optimizers": _optimizers,
    "studies": _studies,
    "settings": _settings,
    "systems": _systems,
}


SINGULAR = {
    "methods": "method",
    "models": "model",
    "data": "data set",
    "metrics": "metric",
    "optimizers": "optimizer",
    "studies": "study",
    "settings": "command with settings",
    "systems": "system",
}


def _description(kind: str, name: str) -> str:
    """What an entry says of itself in full; empty where its summary says all."""
    if kind == "methods":
        from ssgd_analysis.methods import METHODS

        return inspect.getdoc(METHODS[name]) or ""
    if kind == "metrics":
        from ssgd_analysis.flatness import METRICS

        return inspect.getdoc(METRICS[name]) or ""
    if kind == "studies":
        from ssgd_analysis.studies import describe_study, load_study

        return describe_study(load_study(name))
    return ""


@click.command(name="list", epilog=example("ssgd-analyze list methods s-sgd"))
@click.argument("kind", type=Choice(list(LISTS)))
@click.argument("name", required=False)
@json_option
def command(kind: str, name: str | None, as_json: bool) -> None:
    """List what exists by name: methods with settings, metrics with invariances, and so on.

    With NAME, show that entry in full. The kind `settings` lists the settings of every command;
    with --json also their JSON Schema.
    """
    entries = LISTS[kind]()
    if name is not None:
        entries = [_one(kind, name, entries)]
    if as_json:
        console.answer_json(entries)
        return
    if not entries:
        console.answer(f"no {kind} yet")
    width = max((len(entry["name"]) for entry in entries), default=0)
    for entry in entries:
        _answer(entry, width)


def _one(kind: str, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of a name, with its description."""
    from ssgd_analysis.errors import unknown

    found = next((entry for entry in entries if entry["name"] == name), None)
    if found is None:
        raise unknown(SINGULAR[kind], name, [entry["name"] for entry in entries])
    return {**found, "description": _description(kind, name)}


def _answer(entry: dict[str, Any], width: int) -> None:
    console.answer(f"{entry['name']:<{width}}  {entry['summary']}")
    if "invariant_to" in entry:
        names = ", ".join(entry["invariant_to"]) or "nothing"
        console.answer(f"{'':<{width}}  invariant to: {names}")
    if entry.get("radius"):
        radii = ", ".join(f"{radius:g}" for radius in entry["radii"])
        console.answer(f"{'':<{width}}  radius: {entry['radius']}, a curve over {radii}")
    if entry.get("needs"):
        console.answer(f"{'':<{width}}  needs: {', '.join(entry['needs'])}")
    for setting in entry.get("settings", ()):
        option = setting.get("option", f"--set {setting['name']}={setting['default']}")
        choices = f" [{'|'.join(setting['choices'])}]" if setting["choices"] else ""
        console.answer(f"{'':<{width}}  {option}{choices}: {setting['meaning']}")
    if entry.get("description"):
        console.answer()
        console.answer(entry["description"])
