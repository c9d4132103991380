"""Runs that differ in their seed only are repeats of one thing: a group."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs import Run, TrainConfig

# fields in which runs of one group may differ
REPEATS = {"seed", "device", "data_dir", "save_every", "track", "track_every", "track_samples"}
# fields that fix the loss as a function of the weights: flatness compares only if they are equal
PROBLEM = ("data", "model", "loss", "count", "label_noise", "val", "train_samples")


@dataclass(frozen=True)
class Group:
    """Repeats of one method with one choice of settings.

    Args:
        name: its label or method, and the settings that distinguish it from other groups.
        config: of the first repeat.
        runs: by seed, ascending.
        condition: its baseline is sought among groups of the same condition (a study's setting).

    Example:
        >>> config = TrainConfig(method="sam", data="digits", model="mlp")
        >>> Group("sam", config, {0: Run(Path("runs/sam"))}).runs[0].folder.name
        'sam'
    """

    name: str
    config: TrainConfig
    runs: dict[int, Run]
    condition: str = ""


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Run]]:
    """All runs at or below the given paths, finished ones and others; links are followed.

    Raises:
        InputError: a path that is not there, or no runs at all.
    """
    folders: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise InputError(f"there is no folder {path}")
        folders |= _run_folders(path.resolve())
    runs = [Run(folder) for folder in sorted(folders)]
    if not runs:
        raise InputError(f"no runs in {', '.join(map(str, paths))}: train some first")
    finished = [run for run in runs if run.finished]
    if not finished:
        raise InputError(
            f"none of the {len(runs)} runs is finished: continue them with `ssgd-analyze train"
            " --resume`"
        )
    return finished, [run for run in runs if not run.finished]


def _run_folders(top: Path) -> set[Path]:
    """Each by its real path, once; ``rglob`` would not follow links, nor survive a circle."""
    found, visited, waiting = set(), set(), [top]
    while waiting:
        folder = waiting.pop()
        if folder in visited:
            continue
        visited.add(folder)
        if (folder / "config.json").is_file():
            found.add(folder)
        with contextlib.suppress(PermissionError):  # somebody else's folder beside the runs
            waiting += [inner.resolve() for inner in folder.iterdir() if inner.is_dir()]
    return found


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs by everything but what is in :data:`REPEATS`, and name the groups.

    Raises:
        InputError: two runs of a group have the same seed, so they are no repeats.
    """
    members: dict[str, dict[int, Run]] = {}
    configs: dict[str, TrainConfig] = {}
    for run in runs:
        config = run.config()
        key = json.dumps(_identity(config), sort_keys=True)
        group = members.setdefault(key, {})
        if config.seed in group:
            raise InputError(
                f"{run.folder} and {group[config.seed].folder} are the same run twice"
                f" (seed {config.seed})"
            )
        group[config.seed] = run
        configs.setdefault(key, config)
    names = _names([configs[key] for key in members])
    return [
        Group(name, configs[key], dict(sorted(members[key].items())))
        for name, key in zip(names, members, strict=True)
    ]


def count_differing(one: TrainConfig, other: TrainConfig) -> int:
    """In how many settings, the method and its own apart, two groups differ."""
    a, b = _identity(one), _identity(other)
    return sum(a[k] != b[k] for k in a if k not in {"method", "settings", "label", "epochs"})


def problem_differences(one: TrainConfig, other: TrainConfig) -> str:
    """In what the problems of two groups differ, in words; empty where they are the same."""
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in PROBLEM]
    return ", ".join(f"{name} ({a}, {b})" for name, a, b in pairs if a != b)


def _identity(config: TrainConfig) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in REPEATS}


def _names(configs: list[TrainConfig]) -> list[str]:
    """The label or method of each, with the settings that distinguish it from the others.

    Settings of the methods, and all settings of groups with a label, appear only where the names
    would be equal otherwise. Settings of the problem always appear where they differ.
    """
    names = [config.label or config.method for config in configs]
    described = []
    for name, config in zip(names, configs, strict=True):
        own = _flat(config)
        shown = set()
        for other_name, other in zip(names, map(_flat, configs), strict=True):
            common = PROBLEM if config.label else _identity(config).keys() - {"method", "label"}
            keys = own if other_name == name else common
            shown |= {key for key in keys if other.get(key) != own.get(key)}
        values = [f"{key}={_tail(key, own[key], configs)}" for key in own if key in shown]
        described.append(" ".join([name, *values]))
    return described


def _tail(key: str, value: Any, configs: list[TrainConfig]) -> Any:
    """A reference without its folder, or where that is not enough without what all share."""
    if key not in ("data", "model", "loss"):
        return value
    others = {getattr(config, key) for config in configs}
    if len({other.rpartition("/")[2] for other in others}) == len(others):
        return value.rpartition("/")[2]
    shared = os.path.commonprefix(list(others))  # noqa: RUF071 (letters are meant)
    return value[shared.rfind("/") + 1 :]


def _flat(config: TrainConfig) -> dict[str, Any]:
    identity = _identity(config)
    return {**identity.pop("settings"), **identity}
