"""``ssgd-analyze sharpness``."""

import time
from pathlib import Path
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    COUNT,
    POSITIVE,
    Bytes,
    Number,
    checkpoint_options,
    computing,
    example,
    json_option,
    load_checkpoints,
)
from ssgd_analysis.cli.sharpness_tables import print_differences, print_sharpness


@click.command(
    epilog=example(
        "ssgd-analyze train --method sgd --data digits --model mlp --epochs 5 --out "
        "runs/sharpness --resume && ssgd-analyze sharpness runs/sharpness --top 3 --metric "
        "expected"
    )
)
@checkpoint_options()
@click.option(
    "--operator",
    default="hessian",
    help="hessian, ggn, fisher (empirical), fisher-mc (sampled labels) or covariance (of the"
    " gradients) (default: hessian).",
)
@click.option(
    "--layers", multiple=True, metavar="PATTERN", help="Only parameters like this, as 'conv*'."
)
@click.option("--per-layer", is_flag=True, help="λ_max and trace of every layer's block too.")
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
    "--trace-tol", type=POSITIVE, help="Go on until the trace's relative standard error is below."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="A flatness metric: `ssgd-analyze list metrics`; all: every one that there is here.",
)
@click.option(
    "--curves", is_flag=True, help="Every metric that has a radius over a grid of radii too."
)
@click.option("--plan", "only_plan", is_flag=True, help="Predict memory and time; measure nothing.")
@click.option(
    "--memory-budget",
    type=Bytes(),
    help="For what is kept between products (default: half of what is free).",
)
@click.option(
    "--time-budget",
    type=POSITIVE,
    metavar="SECONDS",
    help="The best that can be had in this time; what does not fit says so.",
)
@click.option(
    "--product",
    type=click.Choice(["auto", "linear", "compiled", "graph", "difference"]),
    default="auto",
    help="How to multiply (default: auto, by a short measurement).",
)
@click.option("--micro-batch", type=COUNT, help="Examples multiplied at once (default: measured).")
@click.option(
    "--rescale-check",
    is_flag=True,
    help="Rescale the weights so that the function stays: how far does each metric move?",
)
@click.option(
    "--rescale-factor",
    type=POSITIVE,
    default=5.0,
    help="Of --rescale-check; its inverse is tried, too (default: 5).",
)
@click.option("--cross-check", is_flag=True, help="Run PyHessian on the same problem beside it.")
@click.option("--save-vectors", is_flag=True, help="Keep eigenvectors in --out.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for sharpness.json and pictures."
)
@click.option("--resume", is_flag=True, help="Take checkpoints that are finished from --out.")
@json_option
@computing
def command(
    checkpoints: tuple[str, ...],
    only_plan: bool,
    cross_check: bool,
    save_vectors: bool,
    time_budget: float | None,
    out: Path | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the curvature of the loss at one or more checkpoints.

    A CHECKPOINT is a run (its final weights), RUN@STEP, a weight file inside a run, or a
    foreign .safetensors, .pt or .pth file with --model and --data. Every eigenvalue comes with
    its residual and sampling error, the trace with the probes' error. A --loss of
    (model, batch) takes models and data of any kind.
    """
    from ssgd_analysis.compare.sources import fingerprint
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import make_folder, write_json
    from ssgd_analysis.flatness import METRICS, resolve
    from ssgd_analysis.report.sharpness import sharpness_pictures
    from ssgd_analysis.sharpness import store
    from ssgd_analysis.sharpness.differences import differences

    if cross_check and options["operator"] != "hessian":
        raise InputError("--cross-check compares Hessians: use it with --operator hessian")
    if out is None and (save_vectors or resume):
        raise InputError(f"--{'save-vectors' if save_vectors else 'resume'} needs --out")
    request = _request(options)
    if options["curves"] and not any(METRICS[resolve(m)[0]].radius for m in request.metrics):
        with_radius = ", ".join(name for name, entry in METRICS.items() if entry.radius)
        raise InputError(f"--curves needs a --metric that has a radius: {with_radius}")
    ends = None if time_budget is None else time.monotonic() + time_budget
    opened = load_checkpoints(checkpoints, options)
    if out is not None:
        make_folder(out)
    results: list[dict[str, Any]] = []
    factor = options["rescale_factor"] if options["rescale_check"] else None
    work = _Work(request, cross_check, out if save_vectors else None, factor)
    for index, checkpoint in enumerate(opened):
        problem = checkpoint.problem(
            options["split"],
            samples=options["samples"],
            batch_size=options["batch_size"],
            layers=options["layers"],
        )
        named = {"checkpoint": checkpoint.name, "split": options["split"]}
        if only_plan:
            results.append({**named, "plan": work.plan(checkpoint.name, problem)})
            continue
        place = None if out is None else out / "checkpoints" / f"{index:03d}.json"
        code = [fingerprint(name) for name in checkpoint.references.values()]
        key = f"{problem.fingerprint()} {code} {request} {options} {cross_check} {time_budget}"
        found = store.kept(place, key) if resume and place is not None else None
        if found is not None and save_vectors and not _has_vectors(found):
            console.say(f"{checkpoint.name}: measured again, as no vectors were kept")
            found = None
        if found is not None:
            console.say(f"{checkpoint.name}: taken from {place}")
        else:
            deadline = None if ends is None else _share(ends, len(opened) - index)
            found = work.measure(index, checkpoint.name, problem, deadline)
            if place is not None:
                store.keep(place, key, found)
        results.append({**named, **found})
    answer: dict[str, Any] = {"checkpoints": results}
    if len(results) > 1 and not only_plan:
        answer["differences"] = differences(results)
    pictures = [] if out is None or only_plan else sharpness_pictures(answer, out)
    if out is not None and not only_plan:
        write_json(out / "sharpness.json", answer)
    if as_json:
        console.answer_json(answer)
        return
    for result in results:
        if only_plan:
            console.answer(f"{result['checkpoint']}: {result['plan']['text']}")
        else:
            print_sharpness(result)
    print_differences(answer.get("differences", []))
    for picture in pictures:
        console.answer(str(picture))


def _request(options: dict[str, Any]) -> Any:
    from ssgd_analysis.curvature import Options
    from ssgd_analysis.files import cache_folder
    from ssgd_analysis.flatness import all_metrics
    from ssgd_analysis.sharpness.record import Request

    metrics = options["metrics"]
    return Request(
        operator=options["operator"],
        top=options["top"],
        tol=options["tol"],
        probes=options["probes"],
        trace_tol=options["trace_tol"],
        metrics=all_metrics(metrics),
        optional="all" in metrics,
        curves=options["curves"],
        per_layer=options["per_layer"],
        options=Options(
            strategy=None if options["product"] == "auto" else options["product"],
            micro_batch=options["micro_batch"],
            memory=options["memory_budget"],
        ),
        plans=cache_folder() / "plans",
        seed=options["seed"],
    )


def _has_vectors(record: dict[str, Any]) -> bool:
    path = record.get("vectors")
    return path is not None and Path(path).is_file()


def _share(ends: float, left: int) -> float:
    """This checkpoint's deadline: what time is left is shared evenly."""
    now = time.monotonic()
    return now + max(0.0, ends - now) / left


def _part(deadline: float | None, stages: int) -> float | None:
    """The deadline of the next of so many stages, if there is one."""
    return None if deadline is None else _share(deadline, stages)


class _Work:
    """Measures checkpoint after checkpoint; eigenvectors of one start the search of the next."""

    def __init__(
        self, request: Any, cross_check: bool, vectors: Path | None, factor: float | None
    ) -> None:
        self.request, self.cross_check, self.vectors = request, cross_check, vectors
        self.factor = factor
        self.last: Any = None

    def plan(self, name: str, problem: Any) -> dict[str, Any]:
        """Memory and time, predicted."""
        from ssgd_analysis.sharpness.record import prepared

        with console.Display(f"{name}: ") as progress:
            plan = prepared(problem, self.request, progress=progress).engine.plan
        return {
            **plan.to_json(),
            "products": self.request.products,
            "seconds": self._seconds(plan),
            "text": self._told(plan),
        }

    def _seconds(self, plan: Any) -> float:
        return (plan.setup or 0.0) + self.request.products * (plan.product or 0.0)

    def _told(self, plan: Any) -> str:
        from ssgd_analysis.curvature.products.plan import describe

        took = _duration(self._seconds(plan))
        return f"{describe(plan)}; about {self.request.products} products, {took}"

    def measure(
        self, index: int, name: str, problem: Any, deadline: float | None
    ) -> dict[str, Any]:
        from ssgd_analysis.errors import OutOfTimeError
        from ssgd_analysis.sharpness import store
        from ssgd_analysis.sharpness.cross_check import cross_check_pyhessian
        from ssgd_analysis.sharpness.record import measure, prepared
        from ssgd_analysis.sharpness.rescale_check import rescale_check

        like = self.last is not None and self.last.parameters == {
            name: parameter.shape for name, parameter in problem.parameters.items()
        }
        rescaling = self.factor is not None
        with console.Display(f"{name}: ") as progress:
            operator = prepared(problem, self.request, progress=progress)
            progress.say(self._told(operator.engine.plan))
            found = measure(
                problem,
                self.request,
                operator=operator,
                start=self.last.vectors if like else None,
                deadline=_part(deadline, 1 + self.cross_check + rescaling),
                progress=progress,
            )
            record = found.record
            if self.cross_check:
                record["cross_check"] = cross_check_pyhessian(
                    problem,
                    self.request.top,
                    seed=self.request.seed,
                    deadline=_part(deadline, 1 + rescaling),
                )
            if self.factor is not None:
                try:
                    record["rescale_check"] = rescale_check(
                        problem,
                        [m for m, found in record["metrics"].items() if found["value"] is not None],
                        factor=self.factor,
                        seed=self.request.seed,
                        options=self.request.options,
                        deadline=deadline,
                        progress=progress,
                    )
                except OutOfTimeError as error:
                    record["rescale_check"] = {"factor": self.factor, "why": str(error)}
        self.last = found
        if self.vectors is not None:
            path = self.vectors / f"vectors-{index:03d}.safetensors"
            store.save_vectors(path, found)
            record["vectors"] = str(path)
        return record


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
