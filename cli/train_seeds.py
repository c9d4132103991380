"""``ssgd-analyze train --batch-seeds``: one run folder for each of many seeds."""

from pathlib import Path

from ssgd_analysis.cli import console

from ssgd_analysis.errors import WorkError
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train_together


def seed_folders(out: Path, first: int, count: int) -> dict[int, Path]:
    """The run folder of each seed."""
    return {seed: out / f"seed-{seed}" for seed in range(first, first + count)}


def train_seeds(jobs: list[tuple[TrainConfig, Path]], resume: bool, as_json: bool) -> None:
    """Train all runs in one process, and answer with a row, or an object, for each.

    Raises:
        InputError, WorkError: that of the first run that failed, once all others are done.
    """
    with console.Display() as progress:
        results = train_together(jobs, resume=resume, progress=progress)
    pairs = list(zip(jobs, results, strict=True))
    if as_json:
        runs = [
            {"run": str(folder), "error": str(result)} if isinstance(result, Exception) else result
            for (_, folder), result in pairs
        ]
        console.answer_json({"runs": runs})
    elif done := [(folder, r["final"]) for (_, folder), r in pairs if isinstance(r, dict)]:
        console.answer_runs(done)
    failed = [(job, result) for job, result in pairs if isinstance(result, Exception)]
    for (_, folder), error in failed[1:]:
        console.say(f"{folder}: {error}")
    if failed:
        (_, folder), error = failed[0]
        if isinstance(error, WorkError) and str(folder) not in str(error):
            raise WorkError(f"{folder}: {error}") from error
        raise error
