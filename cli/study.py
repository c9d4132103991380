"""``ssgd-analyze study``."""

from pathlib import Path
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import COUNT, command_line, computing, example, json_option


@click.command(epilog=example("ssgd-analyze study digits --out results/digits"))
@click.argument("name", default="digits", metavar="[NAME|FILE.toml]")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for runs and report."
)
@click.option("--jobs", type=COUNT, help="Processes, one thread each (default: one a core).")
@click.option("--resume", is_flag=True, help="Keep every result that is there, and go on.")
@click.option(
    "--seeds", type=COUNT, help="How many seeds; with --resume more than there are (default: all)."
)
@click.option(
    "--scale",
    type=click.Choice(["full", "tiny"]),
    default="full",
    help="tiny: minutes on a stand-in, to prove the file.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and the time it takes, no more.")
@json_option
@computing
def command(
    name: str,
    out: Path,
    jobs: int | None,
    resume: bool,
    seeds: int | None,
    scale: str,
    dry_run: bool,
    as_json: bool,
    device: str,
    data_dir: Path | None,
    seed: int,
) -> None:
    """Tune and train a grid of methods and seeds, measure every run, compare, and report.

    Without a name it runs `digits`: real handwritten digits, no network, no GPU, minutes on
    two cores. A study's own seeds stand in its file; --seed is added to each of them.
    """
    import dataclasses

    from ssgd_analysis.report.tables import group_rows
    from ssgd_analysis.studies import load_study, plan, run_study, with_seeds

    study = load_study(name, scale)
    study = dataclasses.replace(study, seeds=[own + seed for own in study.seeds])
    shown = study if seeds is None else with_seeds(study, seeds)
    where: dict[str, Any] = {"jobs": jobs, "device": device, "data_dir": data_dir}
    expected = plan(shown, out, **where) if dry_run or not resume else None
    runs = len(shown.seeds) * len(study.settings) * len(study.arms)
    tuning = study.tuning
    trials = len(study.settings) * len(study.arms) * tuning.trials if tuning else 0
    console.say(
        f"study {study.name}: {len(study.arms)} arms × {len(study.settings)} settings ×"
        f" {len(shown.seeds)} seeds = {runs} runs, {trials} tuning trials, into {out}"
    )
    if expected is not None:
        console.say(expected.words())
    if dry_run and expected is not None:
        answer = {"study": study.name, "final_runs": runs, "tuning_trials": trials}
        if as_json:
            console.answer_json({**answer, **dataclasses.asdict(expected), "out": str(out)})
        return
    options = {
        "out": out,
        "jobs": jobs,
        "resume": resume,
        "seeds": seeds,
        "scale": scale if scale != "full" else None,
        "seed": seed or None,
    }
    with console.Display() as progress:
        result = run_study(
            study,
            out,
            resume=resume,
            seeds=seeds,
            command=command_line("study", [name], options),
            progress=progress,
            **where,
        )
    if as_json:
        console.answer_json(result)
        return
    console.answer(result["verdict"])
    console.answer()
    console.answer_table(*group_rows(result))
    console.answer()
    console.answer(f"report: {result['report']}")
    for path in result["pictures"]:
        console.answer(f"picture: {path}")
