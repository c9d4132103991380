"""Runs that differ in their seed only are repeats of one thing: a group."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError
from ssgd_analysis.training import Run, TrainConfig

# what does not make another group: the repeat itself, and where it was computed
REPEATS = {"seed", "device", "data_dir", "save_every"}


@dataclass(frozen=True)
class Group:
    """Repeats of one method with one choice of settings.

    Args:
        name: its label or method, and what tells it from the groups beside it.
        config: of the first repeat.
        runs: by seed, ascending.
        condition: groups of another condition (a study's setting) are no baseline for it.
    """

    name: str
    config: TrainConfig
    runs: dict[int, Run]
    condition: str = ""


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Run]]:
    """All runs at or below the given paths, finished ones and others.

    Raises:
        InputError: a path that is not there, or no runs at all.
    """
    folders: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise InputError(f"there is no folder {path}")
        folders |= {config.parent for config in path.resolve().rglob("config.json")}
    runs = [Run(folder) for folder in sorted(folders)]
    if not runs:
        raise InputError(f"no runs in {', '.join(map(str, paths))}: train some first")
    finished = [run for run in runs if run.finished]
    if not finished:
        raise InputError(f"none of the {len(runs)} runs is finished: train them on with --resume")
    return finished, [run for run in runs if not run.finished]


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


def differences(one: TrainConfig, other: TrainConfig) -> int:
    """In how many settings, the method and its own apart, two groups differ."""
    a, b = _identity(one), _identity(other)
    return sum(a[k] != b[k] for k in a if k not in {"method", "settings", "label", "epochs"})


def _identity(config: TrainConfig) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in REPEATS}


def _names(configs: list[TrainConfig]) -> list[str]:
    """The label or method of each, with the settings that tell equal ones apart."""
    names = [config.label or config.method for config in configs]
    described = []
    for index, (name, config) in enumerate(zip(names, configs, strict=True)):
        same = [c for i, c in enumerate(configs) if names[i] == name and i != index]
        mine = _flat(config)
        told = [k for k in mine if any(_flat(other).get(k) != mine[k] for other in same)]
        described.append(" ".join([name, *(f"{key}={mine[key]}" for key in told)]))
    return described


def _flat(config: TrainConfig) -> dict[str, Any]:
    identity = _identity(config)
    return {**identity.pop("settings"), **identity}
