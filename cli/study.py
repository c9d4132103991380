"""``ssgd-analyze study``."""

from pathlib import Path
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    command_line,
    computing,
    example,
    given,
    json_option,
    settings_from,
    settings_options,
)

from ssgd_analysis.settings.study import StudySettings


@click.command(epilog=example("ssgd-analyze study digits --out results/digits"))
@click.argument("name", default="digits", metavar="[NAME|FILE.toml]")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for runs and report."
)
@settings_options(StudySettings)
@click.option(
    "--resume", is_flag=True, help="Continue the study in --out; finished runs are not repeated."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and the time it will take, and stop.")
@json_option
@computing
def command(
    name: str, out: Path, resume: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Tune and train a grid of methods and seeds, measure every run, compare, and report.

    Without a name it runs `digits`: real handwritten digits, no network, no GPU, minutes on
    two cores. The file of a study gives its seeds; --seed is added to each of them.
    """
    import dataclasses

    from ssgd_analysis.report.tables import group_rows
    from ssgd_analysis.studies import load_study, plan_study, run_study, with_seeds

    settings = settings_from(StudySettings, options)
    seed, where = options["seed"], {"device": options["device"], "data_dir": options["data_dir"]}
    study = load_study(name, settings.scale)
    study = dataclasses.replace(study, seeds=[own + seed for own in study.seeds])
    planned = study if settings.seeds is None else with_seeds(study, settings.seeds)
    expected = None
    if dry_run or not resume:
        expected = plan_study(planned, out, jobs=settings.jobs, **where)
    runs = len(planned.seeds) * len(study.settings) * len(study.arms)
    tuning = study.tuning
    trials = len(study.settings) * len(study.arms) * tuning.trials if tuning else 0
    console.say(
        f"study {study.name}: {len(study.arms)} arms × {len(study.settings)} settings ×"
        f" {len(planned.seeds)} seeds = {runs} runs, {trials} tuning trials, into {out}"
    )
    if expected is not None:
        console.say(expected.words())
    if dry_run and expected is not None:
        answer = {"study": study.name, "final_runs": runs, "tuning_trials": trials}
        if as_json:
            console.answer_json({**answer, **dataclasses.asdict(expected), "out": str(out)})
        return
    typed = {
        "out": out,
        **given({each: options[each] for each in ("jobs", "seeds", "scale")}),
        "resume": resume,
        "seed": seed or None,
    }
    with console.Display() as progress:
        record = run_study(
            study,
            out,
            settings,
            resume=resume,
            command=command_line("study", [name], typed),
            progress=progress,
            **where,
        )
    result = record.to_json()
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
