"""Lines and planes around the first seed of every group, for a study's pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssgd_analysis.comparison import Group
from ssgd_analysis.files import make_folder, save_arrays
from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.parallel import parallel
from ssgd_analysis.progress import Progress
from ssgd_analysis.runs.checkpoint import load_checkpoint
from ssgd_analysis.studies.cells import slug
from ssgd_analysis.studies.comparison import Resources
from ssgd_analysis.studies.spec import Study

Landscapes = dict[str, dict[str, np.ndarray]]  # "group/1" and "group/2" → arrays


def sample_landscapes(
    study: Study, groups: Sequence[Group], resources: Resources, progress: Progress
) -> Landscapes:
    """Lines and a plane for the first seed of every group; empty where the study draws none."""
    if not study.landscape_points:
        return {}
    folder = make_folder(resources.out / "landscapes")
    targets = {
        f"{group.name}/{dims}": (folder / f"{slug(group.name)}-{dims}d.npz", dims, group)
        for group in groups
        for dims in (1, 2)
    }
    calls = [
        (
            _landscape,
            (study, next(iter(group.runs.values())).folder, dims, target, resources.device),
        )
        for target, dims, group in targets.values()
    ]
    progress.start("landscapes", len(calls))
    for _ in parallel(calls, resources.jobs):
        progress.advance()
    found = {}
    for name, (target, _, _) in targets.items():
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
    found = landscape(NamedProblem(str(run), problem, problem.batches), settings)
    save_arrays(target, found.arrays)
