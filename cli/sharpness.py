"""``ssgd-analyze sharpness``."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    COUNT,
    POSITIVE,
    Number,
    checkpoint_options,
    computing,
    example,
    json_option,
    load_checkpoints,
)


@click.command(
    epilog=example(
        "ssgd-analyze train --method sgd --data digits --model mlp --epochs 5 --out "
        "runs/sharpness --resume && ssgd-analyze sharpness runs/sharpness --top 3 --metric "
        "expected"
    )
)
@checkpoint_options
@click.option("--operator", default="hessian", help="hessian, ggn or fisher (default: hessian).")
@click.option(
    "--top", type=COUNT, default=5, help="How many of the largest eigenvalues (default: 5)."
)
@click.option(
    "--tol", type=POSITIVE, default=1e-4, help="Relative residual to reach (default: 1e-4)."
)
@click.option(
    "--probes", type=Number(int, 2), default=32, help="Probes of the trace (default: 32)."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="A flatness metric: `ssgd-analyze list metrics`; all: every one.",
)
@click.option("--cross-check", is_flag=True, help="Run PyHessian on the same problem beside it.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for sharpness.json and pictures."
)
@json_option
@computing
def command(
    checkpoints: tuple[str, ...],
    operator: str,
    top: int,
    tol: float,
    probes: int,
    metrics: tuple[str, ...],
    cross_check: bool,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the curvature of the loss at one or more checkpoints.

    A CHECKPOINT is a run (its final weights), RUN@STEP, a weight file inside a run, or a
    foreign .safetensors, .pt or .pth file with --model and --data. Every eigenvalue comes with
    its residual and sampling error, the trace with the probes' error.
    """
    from ssgd_analysis.curvature.cross_check import cross_check_pyhessian
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import make_folder, write_json
    from ssgd_analysis.flatness import METRICS
    from ssgd_analysis.flatness.measure import measure

    if cross_check and operator != "hessian":
        raise InputError("--cross-check compares Hessians: use it with --operator hessian")
    opened = load_checkpoints(checkpoints, options)
    if out is not None:
        make_folder(out)
    wanted = list(METRICS) if "all" in metrics else list(dict.fromkeys(metrics))
    results = []
    for checkpoint in opened:
        problem = checkpoint.problem(
            options["split"], samples=options["samples"], batch_size=options["batch_size"]
        )
        with console.Display(f"{checkpoint.name}: ") as progress:
            found = measure(
                problem,
                operator=operator,
                top=top,
                tol=tol,
                probes=probes,
                metrics=wanted,
                seed=options["seed"],
                progress=progress,
            )
            if cross_check:
                found["cross_check"] = cross_check_pyhessian(problem, top, seed=options["seed"])
        results.append({"checkpoint": checkpoint.name, "split": options["split"], **found})
    answer = {"checkpoints": results}
    pictures = [] if out is None else _write(answer, out)
    if out is not None:
        write_json(out / "sharpness.json", answer)
    if as_json:
        console.answer_json(answer)
        return
    for result in results:
        _print(result)
    for picture in pictures:
        console.answer(str(picture))


def _print(result: dict[str, Any]) -> None:
    console.answer(
        f"{result['checkpoint']}: {result['operator']}, {result['split']},"
        f" {result['n_samples']} examples, {result['n_parameters']} parameters,"
        f" loss {console.number(result['loss'])}, accuracy {console.number(result['accuracy'])}"
    )
    rows = [
        [f"λ{index}", *_doubt(pair)] for index, pair in enumerate(result["eigenvalues"], start=1)
    ]
    rows.append(["smallest λ", *_doubt(result["smallest_eigenvalue"])])
    trace = result["trace"]
    rows.append(["trace", console.number(trace["value"]), console.number(trace["stderr"], 2), "–"])
    for name, metric in result["metrics"].items():
        rows.append(
            [name, console.number(metric["value"]), console.number(metric["stderr"], 2), "–"]
        )
    console.answer_table(["", "value", "stderr", "residual"], rows)
    if result["stop"] == "products":
        console.say("Warning: the budget of products ended the search; see the residuals")
    if "cross_check" in result:
        _print_check(result["cross_check"])
    console.answer()


def _print_check(check: dict[str, Any]) -> None:
    rows = [
        [
            f"λ{index} by {who}",
            console.number(pair["value"], 6),
            console.number(pair["residual"], 2),
        ]
        for who in ("ours", "pyhessian")
        for index, pair in enumerate(check[who] or [], start=1)
    ]
    console.answer_table(["cross-check", "value", "residual"], rows)
    console.answer(
        f"largest relative difference {console.number(check['largest_difference'], 2)};"
        f" {check['note']}"
    )


def _doubt(pair: dict[str, Any]) -> list[str]:
    return [
        console.number(pair["value"]),
        console.number(pair["stderr"], 2),
        console.number(pair["residual"], 2),
    ]


def _write(answer: dict[str, Any], out: Path) -> list[Path]:
    from ssgd_analysis.plots import density_figure, save_figure

    panels = {}
    for result in answer["checkpoints"]:
        density = result["density"]
        columns = [np.asarray(density[key]) for key in ("grid", "density", "stderr")]
        top = [pair["value"] for pair in result["eigenvalues"]]
        panels[result["checkpoint"]] = (columns[0], columns[1], columns[2], top)
    operator = answer["checkpoints"][0]["operator"]
    return save_figure(density_figure(panels, operator=operator), out / "density")
