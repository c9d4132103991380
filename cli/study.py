"""``ssgd-analyze study``."""

from pathlib import Path

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import COUNT, computing, example, json_option


@click.command(epilog=example("ssgd-analyze study digits --out results/digits"))
@click.argument("name", default="digits", metavar="[NAME|FILE.toml]")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for runs and report."
)
@click.option("--jobs", type=COUNT, help="Processes, one thread each (default: one a core).")
@click.option("--resume", is_flag=True, help="Keep every result that is there, and go on.")
@json_option
@computing
def command(
    name: str,
    out: Path,
    jobs: int | None,
    resume: bool,
    as_json: bool,
    device: str,
    data_dir: Path | None,
    seed: int,
) -> None:
    """Train a grid of methods and seeds, measure every run, compare, and write the report.

    Without a name it runs `digits`: real handwritten digits, no network, no GPU, minutes on
    two cores. A study's own seeds stand in its file; --seed is added to each of them.
    """
    import dataclasses

    from ssgd_analysis.report.tables import group_rows
    from ssgd_analysis.studies import load_study, run_study

    study = load_study(name)
    study = dataclasses.replace(study, seeds=[own + seed for own in study.seeds])
    runs = len(study.seeds) * len(study.settings) * len(study.arms)
    console.say(
        f"study {study.name}: {len(study.arms)} arms × {len(study.settings)} settings ×"
        f" {len(study.seeds)} seeds = {runs} runs, into {out}"
    )
    with console.Display() as progress:
        result = run_study(
            study,
            out,
            jobs=jobs,
            resume=resume,
            device=device,
            data_dir=data_dir,
            progress=progress,
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
