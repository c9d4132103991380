"""What ``ssgd-analyze train`` prints and draws at its end."""

from pathlib import Path
from typing import Any

from ssgd_analysis.cli import console

from ssgd_analysis.errors import InputError, WorkError


def answer_seeds(results: list[tuple[Path, Any]], as_json: bool) -> None:
    """A row, or an object, for each run.

    Raises:
        InputError: every run failed, the first one because of its input.
        WorkError: some runs failed; it names them.
    """
    failed = {folder: r for folder, r in results if isinstance(r, Exception)}
    if as_json:
        runs = [
            {"run": str(folder), "error": str(result)} if folder in failed else result
            for folder, result in results
        ]
        console.answer_json({"runs": runs})
    elif done := [(folder, r["final"]) for folder, r in results if folder not in failed]:
        console.answer_runs(done)
    if not failed:
        return
    folder, error = next(iter(failed.items()))
    if len(failed) == len(results) and isinstance(error, InputError):
        raise error
    names = ", ".join(folder.name for folder in failed)
    raise WorkError(f"{len(failed)} of {len(results)} runs failed ({names}); {folder}: {error}")


def answer_run(out: Path, result: dict[str, Any], was_done: bool, as_json: bool) -> None:
    """The last record of the run, and the pictures of what was tracked."""
    if was_done:
        console.say(f"{out} is finished; nothing to do")
    if as_json:
        console.answer_json(result)
        return
    console.answer_runs([(out, result["final"])])
    if tracking := result.get("tracking"):
        console.say(
            f"tracking took {tracking['share']:.0%} of the time ({tracking['seconds']:.1f} s,"
            f" {tracking['measurements']} measurements, {tracking['products']} products)"
        )
        for path in tracking["pictures"]:
            console.answer(str(path))


def draw_tracking(run: Any, *, reuse: bool = False) -> list[Path]:
    """Draw what was tracked, if anything; ``reuse``: leave the pictures that are there."""
    from ssgd_analysis.pictures import tracking

    paths = [run.folder / f"tracking.{kind}" for kind in ("png", "pdf")]
    records = run.tracked()
    if not records:
        return []
    if reuse and all(path.is_file() for path in paths):
        return paths
    return tracking.tracking_pictures(records, vars(run.config()), run.folder / "tracking")
