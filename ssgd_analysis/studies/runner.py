"""Runs a study: tunes, trains and measures in parallel, compares, reports; loses nothing."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import jsonable, make_folder, read_json, write_json
from ssgd_analysis.parallel import default_jobs
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.runs import Run
from ssgd_analysis.settings.study import StudySettings
from ssgd_analysis.studies.board import Board
from ssgd_analysis.studies.cells import Cell, run_cells, slug
from ssgd_analysis.studies.comparison import (
    Resources,
    compare_arms,
    group_cells,
    measure_variances,
    seeded_values,
)
from ssgd_analysis.studies.estimate import CostEstimate, estimate_cost
from ssgd_analysis.studies.landscapes import sample_landscapes
from ssgd_analysis.studies.load import check_study, load_study
from ssgd_analysis.studies.questions import QUESTIONS
from ssgd_analysis.studies.questions.answer import UNTUNED, count_failures
from ssgd_analysis.studies.record import StudyRecord
from ssgd_analysis.studies.sessions import add_session, machine
from ssgd_analysis.studies.spec import Study
from ssgd_analysis.studies.tuning import (
    Chosen,
    choices,
    tuning_cells,
    tuning_record,
    write_tuning,
)

STAND_IN = (
    "STAND-IN at the tiny scale: this shows that the study's file runs, and says nothing about any"
    " method. "
)


def run_study(
    study: Study | str,
    out: Path | str,
    settings: StudySettings | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    data_dir: Path | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> StudyRecord:
    """Tune, train the grid, measure every run, compare, and write the report.

    Args:
        study: what to run, a name, or a path that ends in ``.toml``.
        out: a folder; refused if it holds a study, unless ``resume``.
        settings: processes, number of seeds, scale; the scale counts for a name or path only.
        resume: take every result that the folder holds.
        device: for training and measuring.
        data_dir: for data files.
        command: what was typed, for the report.
        progress: is advanced at every run and measurement.

    Returns:
        The record, which lies in the folder: ``report.html``, ``result.json``, tables, pictures.

    Raises:
        InputError: an unknown study, a folder that holds a study, or another one than this.
        WorkError: every run of the focus failed.

    Example:
        >>> record = run_study("digits", "results/digits")  # doctest: +SKIP
        >>> print(record.verdict)  # doctest: +SKIP
    """
    began, settings = time.monotonic(), settings or StudySettings()
    if isinstance(study, str):
        study = load_study(study, settings.scale)
    study = _claim(study, Path(out), resume, settings.seeds)
    resources = Resources(Path(out), settings.jobs or default_jobs(device), device, data_dir)
    tuning, failures = _tune(study, resources, progress)
    cells = final_cells(study, resources, None if tuning is None else choices(tuning))
    fresh = sum(not Run(cell.folder).finished for cell in cells)
    failures |= _untuned(study, tuning)
    board = Board(progress, "training and measuring", cells, "test_accuracy", resources.jobs)
    failures |= run_cells(cells, jobs=resources.jobs, on_done=board)
    groups = group_cells(study, [cell for cell in cells if str(cell.folder) not in failures])
    document = compare_arms(study, groups, resources, progress)
    document |= {"failures": failures, "tuning": tuning}
    if study.variance_scales:
        document["variance"] = measure_variances(study, groups, resources, progress)
    document |= _answer(study, document)
    landscapes = sample_landscapes(study, groups, resources, progress)
    session = {
        "command": command,
        "jobs": resources.jobs,
        "trained": fresh,
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine(),
    }
    sessions = add_session(resources.out, session)
    record = StudyRecord(study, document, groups, landscapes, sessions)
    return dataclasses.replace(record, files=tuple(record.save(resources.out)))


def _answer(study: Study, document: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the answer, and the verdict in words."""
    question = QUESTIONS[study.question]
    answer = question.answer(study, document, seeded_values(study, document["by_seed"]))
    notice = STAND_IN if study.scale == "tiny" else ""
    words = notice + answer.sentence + _failed_runs(study, document["failures"])
    return {"answer": answer.record, "verdict": words}


def plan_study(
    study: Study,
    out: Path,
    *,
    jobs: int | None = None,
    device: str = "cpu",
    data_dir: Path | None = None,
) -> CostEstimate:
    """What a study will cost, from a timed sample of every arm's steps; trains nothing.

    Raises:
        InputError: data that is not there.
    """
    resources = Resources(out, jobs or default_jobs(device), device, data_dir)
    middle: Chosen = {
        (setting.name, arm.label): {n: r.at(0.5) for n, r in study.search(arm).items()}
        for setting in study.settings
        for arm in study.arms
    }
    cells = tuning_cells(study, out, device, data_dir) + final_cells(study, resources, middle)
    return estimate_cost(cells, resources.jobs)


def final_cells(study: Study, resources: Resources, chosen: Chosen | None) -> list[Cell]:
    """The runs that the answer is made of, with the tuned values."""
    return [
        Cell(
            setting.name,
            arm.label,
            resources.out / "runs" / slug(setting.name) / f"{slug(arm.label)}-seed{seed}",
            study.config(
                setting, arm, seed, device=resources.device, data_dir=resources.data_dir, chosen=own
            ),
            tuple(study.metrics),
        )
        for seed in study.seeds
        for setting in study.settings
        for arm in study.arms
        if (own := {} if chosen is None else chosen[setting.name, arm.label]) is not None
    ]


def with_seeds(study: Study, count: int) -> Study:
    """The study with so many seeds: its first ones, then the next numbers that tuning leaves.

    Example:
        >>> with_seeds(load_study("digits"), 2).seeds
        [0, 1]
    """
    taken = set(study.seeds) | set(study.tuning.seeds if study.tuning else ())
    chosen, following = study.seeds[:count], max(study.seeds) + 1
    while len(chosen) < count:
        if following not in taken:
            chosen = [*chosen, following]
        following += 1
    return dataclasses.replace(study, seeds=chosen)


def _claim(study: Study, out: Path, resume: bool, seeds: int | None) -> Study:
    """Make the folder this study's, or refuse; the study with the seeds that it has there."""
    if seeds is not None:
        study = with_seeds(study, seeds)
    check_study(study)
    path = out / "study.json"
    if path.is_file():
        if not resume:
            raise InputError(
                f"{out} already holds a study: continue it with --resume, or name another folder"
            )
        study = _continued(study, read_json(path), out, seeds)
    elif (out / "config.json").exists():
        raise InputError(f"{out} already holds a run: name another folder")
    make_folder(out)
    write_json(path, study)
    return study


def _continued(study: Study, stored: Any, out: Path, seeds: int | None) -> Study:
    """The study as it goes on in its folder: all else the same, as many seeds or more."""
    spec = jsonable(study)
    earlier = stored.get("seeds") if isinstance(stored, dict) else None
    if earlier is None or {**stored, "seeds": None} != {**spec, "seeds": None}:
        raise InputError(f"{out} holds another study, or this one with other settings")
    common = min(len(earlier), len(study.seeds))
    if earlier[:common] != study.seeds[:common]:
        raise InputError(f"{out} holds this study with other seeds: {earlier}")
    if len(study.seeds) >= len(earlier):
        return study
    if seeds is not None:
        raise InputError(f"--seeds {seeds}: {out} has {len(earlier)} seeds already")
    return dataclasses.replace(study, seeds=earlier)


def _tune(
    study: Study, resources: Resources, progress: Progress
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Train the trials, choose, write the record; ``None`` where nothing is tuned."""
    cells = tuning_cells(study, resources.out, resources.device, resources.data_dir)
    if not cells:
        return None, {}
    board = Board(progress, "tuning", cells, "val_accuracy", resources.jobs)
    assert study.tuning is not None
    failures = run_cells(cells, jobs=resources.jobs, on_done=board)
    record = jsonable(tuning_record(study, cells, failures))
    write_tuning(resources.out, record)
    return record, {}  # a trial that diverged is a result of the tuning, and stands there


def _failed_runs(study: Study, failures: Mapping[str, str]) -> str:
    """That runs are missing from the numbers, unless the answer says so itself."""
    if not failures or QUESTIONS[study.question].mentions_failures:
        return ""
    count = count_failures(study, failures)
    subject = "1 run failed and is" if count == 1 else f"{count} runs failed and are"
    return f" {subject} left out."


def _untuned(study: Study, tuning: Mapping[str, Any] | None) -> dict[str, str]:
    """Arms without a single trial that came to its end."""
    return {
        f"{one['setting']} {one['arm']}".strip(): UNTUNED
        for one in (tuning["arms"] if tuning else ())
        if one["chosen"] is None
    }
