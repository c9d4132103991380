"""Runs a study: trains and measures in parallel, compares, draws, reports; loses nothing."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count

from ssgd_analysis.compare import Group, How, Measurements, Rule, compare
from ssgd_analysis.compare.compare import seed_values
from ssgd_analysis.compare.measurements import is_flatness, measure_all
from ssgd_analysis.compare.pairs import pairs_of
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.files import jsonable, make_folder, read_json, write_json
from ssgd_analysis.landscape import LandscapeSettings, Subject, sample_landscape, save_arrays
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.studies.parallel import parallel
from ssgd_analysis.studies.report import write_study
from ssgd_analysis.studies.spec import Study
from ssgd_analysis.studies.verdict import study_verdict
from ssgd_analysis.training import Run, TrainConfig, train
from ssgd_analysis.training.checkpoint import load_checkpoint


def run_study(
    study: Study,
    out: Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train the grid, measure every run, compare, and write the report.

    Args:
        study: what to run.
        out: a folder; refused if it holds a study, unless ``resume``.
        jobs: processes, one thread each; default: one a core, on a GPU one in all.
        resume: keep every result that is there.
        device: for training and measuring.
        data_dir: for data files.
        progress: told of every run and measurement.

    Returns:
        The JSON object of the ``study`` command.

    Raises:
        InputError: a folder that holds a study, or another one than this.
        WorkError: every run of the focus failed.
    """
    _claim(study, out, resume)
    jobs = jobs or (cpu_count() if device == "cpu" else 1)
    cells = [
        (
            setting.name,
            arm.label,
            out / "runs" / _slug(setting.name) / f"{_slug(arm.label)}-seed{seed}",
            study.config(setting, arm, seed, device=device, data_dir=data_dir),
        )
        for seed in study.seeds
        for setting in study.settings
        for arm in study.arms
    ]
    progress.start("training and measuring", len(cells))
    calls = [(_train_and_measure, (config, folder, study.metrics)) for *_, folder, config in cells]
    failures = {}
    for done in parallel(calls, jobs):
        if done["error"]:
            failures[done["folder"]] = done["error"]
            progress.warn(f"{done['folder']}: {done['error']}")
        progress.advance(1, Path(done["folder"]).name)
    groups = _groups(study, [cell[:3] for cell in cells if str(cell[2]) not in failures])
    _measure_matched(study, groups, device, jobs, progress)

    measure = Measurements(study.metrics, How(device=device))
    judged = {
        matched: compare(
            groups,
            measure,
            metrics=study.metrics,
            baseline=study.focus,
            loss_tolerance=study.loss_tolerance,
            match_loss=matched,
            rule=Rule(margin=study.margin),
        )
        for matched in (False, True)
    }
    landscapes = _landscapes(study, groups, out, device, jobs, progress)
    result = {
        "study": study.name,
        "out": str(out),
        "seeds": study.seeds,
        "settings": [setting.name for setting in study.settings],
        "arms": [arm.label for arm in study.arms],
        "groups": judged[False]["groups"],
        "values": {group.name: seed_values(group, study.metrics, measure) for group in groups},
        "tests": judged[False]["tests"],
        "outcomes": judged[False]["outcomes"],
        "overall": judged[False]["overall"],
        "matched_tests": judged[True]["tests"],
        "matched_overall": judged[True]["overall"],
        "rule": judged[True]["rule"],
        "failures": failures,
    }
    result["verdict"] = study_verdict(study, result)
    result["pictures"], result["report"] = write_study(study, out, result, groups, landscapes)
    write_json(out / "result.json", result)
    return jsonable(result)


def _claim(study: Study, out: Path, resume: bool) -> None:
    """Make the folder this study's, or refuse."""
    path, spec = out / "study.json", jsonable(study)
    if path.is_file():
        if not resume:
            raise InputError(f"{out} already holds a study: --resume it, or name another folder")
        if read_json(path) != spec:
            raise InputError(f"{out} holds another study, or this one with other settings")
    elif (out / "config.json").exists():
        raise InputError(f"{out} already holds a run: name another folder")
    make_folder(out)
    write_json(path, spec)


def _train_and_measure(config: TrainConfig, folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """One run, and its metrics; a run that fails is a result, not the end of the study."""
    try:
        train(config, folder, resume=True)
        measure_all(Run(folder), metrics, How(device=config.device))
    except Exception as error:
        kind = "" if isinstance(error, WorkError) else f"{type(error).__name__}: "
        return {"folder": str(folder), "error": f"{kind}{error}"}
    return {"folder": str(folder), "error": None}


def _measure_one(folder: Path, step: int, metrics: Sequence[str], device: str) -> None:
    measure_all(Run(folder), metrics, How(device=device), step=step)


def _measure_matched(
    study: Study, groups: list[Group], device: str, jobs: int, progress: Progress
) -> None:
    """What the comparison at matched train loss needs, measured in parallel beforehand."""
    flatness = tuple(metric for metric in study.metrics if is_flatness(metric))
    needed = {
        (place.run.folder, place.step, flatness, device)
        for pair in pairs_of(groups, study.focus, "checkpoints")
        for side in pair.sides
        for place in side
        if place.step is not None
    }
    calls = [(_measure_one, arguments) for arguments in sorted(needed, key=str)]
    progress.start("measuring at matched train loss", len(calls))
    for _ in parallel(calls, jobs):
        progress.advance()


def _groups(study: Study, cells: Sequence[tuple[str, str, Path]]) -> list[Group]:
    """The finished runs by setting and arm, in the study's order."""
    runs: dict[tuple[str, str], dict[int, Run]] = {}
    for setting, label, folder in cells:
        run = Run(folder)
        if run.finished:
            runs.setdefault((setting, label), {})[run.config().seed] = run
    if not any(label == study.focus for _, label in runs):
        raise WorkError(f"every run of {study.focus} failed: see the warnings")
    return [
        Group(
            f"{label}, {name}" if name else label,
            next(iter(members.values())).config(),
            members,
            condition=name,
        )
        for name in [setting.name for setting in study.settings]
        for label in [arm.label for arm in study.arms]
        if (members := runs.get((name, label)))
    ]


def _landscapes(
    study: Study, groups: list[Group], out: Path, device: str, jobs: int, progress: Progress
) -> dict[str, dict[str, np.ndarray]]:
    """Lines and a plane for the first seed of every group."""
    if not study.landscape_points:
        return {}
    folder = make_folder(out / "landscapes")
    wanted = {
        f"{group.name}/{dims}": (folder / f"{_slug(group.name)}-{dims}d.npz", dims, group)
        for group in groups
        for dims in (1, 2)
    }
    calls = [
        (_landscape, (study, next(iter(group.runs.values())).folder, dims, target, device))
        for target, dims, group in wanted.values()
    ]
    progress.start("landscapes", len(calls))
    for _ in parallel(calls, jobs):
        progress.advance()
    found = {}
    for name, (target, _, _) in wanted.items():
        with np.load(target, allow_pickle=False) as arrays:
            found[name] = {key: arrays[key] for key in arrays.files}
    return found


def _landscape(study: Study, run: Path, dims: int, target: Path, device: str) -> None:
    if target.is_file():  # a run's final weights never change
        return
    checkpoint = load_checkpoint(str(run), device=device)
    problem = checkpoint.problem("train", batch_size=512)
    settings = LandscapeSettings(
        dims=dims,
        span=study.landscape_span,
        points=study.landscape_points,
        repeats=study.landscape_directions if dims == 1 else 1,
        curvature=False,
    )
    made = sample_landscape([Subject(str(run), problem, problem.batches)], settings)
    save_arrays(target, made.arrays)


def _slug(text: str) -> str:
    """A name as part of a path: "SGD 2×" becomes "sgd-2x"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("×", "x")).strip("-") or "all"
