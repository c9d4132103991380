"""The finished runs of a study, grouped by arm and compared."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.comparison import (
    Group,
    Measurements,
    MeasurementSettings,
    VerdictRule,
    compare,
    measure_run,
)
from ssgd_analysis.comparison.metric_kinds import is_flatness
from ssgd_analysis.comparison.pairs import pairs_of
from ssgd_analysis.comparison.rule import rule_record
from ssgd_analysis.errors import WorkError
from ssgd_analysis.parallel import parallel
from ssgd_analysis.progress import Progress
from ssgd_analysis.runs import Run
from ssgd_analysis.studies.budget import spending
from ssgd_analysis.studies.cells import Cell
from ssgd_analysis.studies.questions.answer import Values
from ssgd_analysis.studies.spec import Study, group_name
from ssgd_analysis.studies.variance import noise_variances


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a study is run with.

    Args:
        out: the study's folder.
        jobs: processes at once, one thread each.
        device: for training and measuring.
        data_dir: for data files.
    """

    out: Path
    jobs: int
    device: str
    data_dir: Path | None


def compare_arms(
    study: Study, groups: list[Group], resources: Resources, progress: Progress
) -> dict[str, Any]:
    """Compare every arm with the focus, at the final weights and at matched train loss.

    Returns:
        The study's result without tuning, failures and answer.
    """
    if study.matched:
        _measure_matched(study, groups, resources, progress)
    source = Measurements(study.metrics, MeasurementSettings(device=resources.device))
    found = {
        matched: compare(
            groups,
            source=source,
            metrics=study.metrics,
            baseline=study.focus,
            loss_tolerance=study.loss_tolerance,
            match_loss=matched,
            rule=VerdictRule(margin=study.margin),
        )
        for matched in ((False, True) if study.matched else (False,))
    }
    by_seed = {
        group.name: {
            metric: {
                str(seed): value
                for seed, run in group.runs.items()
                if (value := source(run, metric)) is not None and math.isfinite(value)
            }
            for metric in study.metrics
        }
        for group in groups
    }
    final, matched = found[False], found.get(True)
    return {
        "study": study.name,
        "scale": study.scale,
        "question": study.question,
        "out": str(resources.out),
        "seeds": study.seeds,
        "settings": [setting.name for setting in study.settings],
        "arms": [arm.label for arm in study.arms],
        "groups": final.groups,
        "values": {
            name: {metric: list(own.values()) for metric, own in metrics.items()}
            for name, metrics in by_seed.items()
        },
        "by_seed": by_seed,
        "spending": _spending(groups),
        "tests": final.tests,
        "outcomes": final.outcomes,
        "overall": final.overall,
        "matched_tests": matched.tests if matched else [],
        "matched_overall": matched.overall if matched else [],
        "rule": rule_record(final.rule),
    }


def _spending(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The passes that every arm spent, in examples, so that batch sizes do not matter."""
    spent: dict[str, dict[str, list[float]]] = {}
    for group in groups:
        passes = [
            float(run.history()[-1]["gradients"]) * group.config.batch_size
            for run in group.runs.values()
        ]
        spent.setdefault(group.condition, {})[group.config.label] = passes
    return spending(spent)


def _measure_matched(
    study: Study, groups: list[Group], resources: Resources, progress: Progress
) -> None:
    """Measure in parallel what the comparison at matched train loss will ask for."""
    flatness = tuple(metric for metric in study.metrics if is_flatness(metric))
    needed = {
        (checkpoint.run.folder, checkpoint.step, flatness, resources.device)
        for pair in pairs_of(groups, study.focus, "checkpoints")
        for side in pair.sides
        for checkpoint in side
        if checkpoint.step is not None and flatness
    }
    progress.start("measuring at matched train loss", len(needed))
    for _ in parallel([(_measure_one, call) for call in sorted(needed)], resources.jobs):
        progress.advance()


def _measure_one(folder: Path, step: int, metrics: Sequence[str], device: str) -> None:
    measure_run(Run(folder), metrics, MeasurementSettings(device=device), step=step)


def measure_variances(
    study: Study, groups: Sequence[Group], resources: Resources, progress: Progress
) -> list[dict[str, Any]]:
    """The gradient-noise variance at the weights of the focus's runs in its first setting."""
    own = next(group for group in groups if group.config.label == study.focus)
    runs = [run.folder for run in own.runs.values()]
    progress.start("gradient-noise variance", len(runs) * len(study.arms))
    configs = {
        group.config.label: group.config for group in groups if group.condition == own.condition
    }
    return noise_variances(
        study, runs, jobs=resources.jobs, configs=configs, on_done=progress.advance
    )


def group_cells(study: Study, cells: Sequence[Cell]) -> list[Group]:
    """The finished runs by setting and arm, in the study's order."""
    runs: dict[tuple[str, str], dict[int, Run]] = {}
    for cell in cells:
        run = Run(cell.folder)
        if run.finished:
            runs.setdefault((cell.setting, cell.arm), {})[cell.config.seed] = run
    if not any(label == study.focus for _, label in runs):
        raise WorkError(f"every run of {study.focus} failed: see the warnings")
    return [
        Group(
            group_name(label, name),
            next(iter(members.values())).config(),
            members,
            condition=name,
        )
        for name in [setting.name for setting in study.settings]
        for label in [arm.label for arm in study.arms]
        if (members := runs.get((name, label)))
    ]


def seeded_values(study: Study, by_seed: dict[str, dict[str, dict[str, float]]]) -> Values:
    """(setting, arm) → metric → seed → value, from the groups' by name."""
    return {
        (setting.name, arm.label): {
            metric: {int(seed): value for seed, value in own.items()}
            for metric, own in by_seed[name].items()
        }
        for setting in study.settings
        for arm in study.arms
        if (name := group_name(arm.label, setting.name)) in by_seed
    }
