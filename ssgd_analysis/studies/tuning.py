"""Chooses every arm's learning rate and strength in every setting, on validation data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.files import write_json
from ssgd_analysis.report import write_table
from ssgd_analysis.runs import Run
from ssgd_analysis.studies.cells import Cell, slug
from ssgd_analysis.studies.search import best, points, trial_scores
from ssgd_analysis.studies.spec import Study

Chosen = dict[tuple[str, str], dict[str, float] | None]  # None: every trial failed


def tuning_cells(study: Study, out: Path, device: str, data_dir: Path | None) -> list[Cell]:
    """Every trial of every arm in every setting, with each of the tuning's seeds."""
    tuning = study.tuning
    if tuning is None:
        return []
    return [
        Cell(
            setting.name,
            arm.label,
            out / "tuning" / slug(setting.name) / slug(arm.label) / f"trial-{trial:02d}-seed{seed}",
            study.config(
                setting,
                arm,
                seed,
                device=device,
                data_dir=data_dir,
                chosen=values,
                share=tuning.share,
                val=tuning.val,
                save_every=0,
                track=[],
            ),
            trial=trial,
        )
        for setting in study.settings
        for arm in study.arms
        for trial, values in enumerate(points(tuning, study.search(arm)))
        for seed in tuning.seeds
    ]


def tuning_record(
    study: Study, cells: Sequence[Cell], failures: Mapping[str, str]
) -> dict[str, Any]:
    """The record of the tuning: every trial's values and validation numbers, and the choice.

    Args:
        study: gives the ranges.
        cells: of :func:`tuning_cells`, trained.
        failures: folder → why its run failed.
    """
    assert study.tuning is not None
    runs: dict[tuple[str, str, int], list[dict[str, Any] | None]] = {}
    for cell in cells:
        failed = str(cell.folder) in failures
        record = None if failed else Run(cell.folder).history()[-1]
        assert cell.trial is not None
        runs.setdefault((cell.setting, cell.arm, cell.trial), []).append(record)
    arms = []
    for setting in study.settings:
        for arm in study.arms:
            ranges = study.search(arm)
            tried = points(study.tuning, ranges)
            trials = [
                {"values": values, **trial_scores(runs[setting.name, arm.label, trial])}
                for trial, values in enumerate(tried)
            ]
            choice = best(trials)
            chosen = None if choice is None else tried[choice]
            arms.append(
                {
                    "setting": setting.name,
                    "arm": arm.label,
                    "ranges": ranges,
                    "trials": trials,
                    "chosen_trial": choice,
                    "chosen": chosen,
                    "places": {n: ranges[n].edge(value) for n, value in (chosen or {}).items()},
                }
            )
    record = {
        name: getattr(study.tuning, name) for name in ("trials", "seeds", "val", "sampler", "share")
    }
    criterion = "validation accuracy, and among equals by validation loss"
    return {**record, "sampler_seed": study.tuning.seed, "chosen_by": criterion, "arms": arms}


def choices(record: Mapping[str, Any]) -> Chosen:
    """(setting, arm) → its tuned values."""
    return {(one["setting"], one["arm"]): one["chosen"] for one in record["arms"]}


def write_tuning(out: Path, record: Mapping[str, Any]) -> None:
    """Write ``tuning.json`` and ``tuning.csv``: one row a trial.

    They are made anew from the trials' runs each time and never read back, so they need no store.
    """
    write_json(out / "tuning.json", record)
    names = list(dict.fromkeys(name for one in record["arms"] for name in one["ranges"]))
    rows = [
        [
            one["setting"],
            one["arm"],
            index,
            *(trial["values"].get(name) for name in names),
            trial["val_accuracy"],
            trial["val_loss"],
            trial["failed"],
            "yes" if index == one["chosen_trial"] else "",
        ]
        for one in record["arms"]
        for index, trial in enumerate(one["trials"])
    ]
    header = ["setting", "arm", "trial", *names, "val_accuracy", "val_loss", "failed", "chosen"]
    write_table(out / "tuning.csv", header, rows)
