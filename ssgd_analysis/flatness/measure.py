"""Everything that `sharpness` reports of one problem."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

from ssgd_analysis import seeds
from ssgd_analysis.curvature import OPERATORS, eigenpairs, spectral_density, trace
from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.flatness import METRICS, Measurement
from ssgd_analysis.flatness.hessian import of_spectrum, of_trace
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress


def measure(
    problem: Problem,
    *,
    operator: str = "hessian",
    top: int = 5,
    tol: float = 1e-4,
    probes: int = 32,
    metrics: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Loss, spectrum and metrics of a problem, with errors and cost.

    Args:
        problem: what to measure.
        operator: a name of :data:`ssgd_analysis.curvature.OPERATORS`.
        top: how many of the largest eigenvalues.
        tol: relative residual at which they are accepted.
        probes: Rademacher probes of the trace.
        metrics: names of :data:`ssgd_analysis.flatness.METRICS`, at their default settings.
        seed: of all that is random; one seed gives every problem the same probes.
        progress: told of every step.

    Returns:
        The JSON object of one checkpoint (see ``docs/interface.md``), without its name.

    Raises:
        InputError: an unknown operator or metric, or a problem that does not fit together.
        WorkError: the loss is not finite.
    """
    if operator not in OPERATORS:
        raise unknown("operator", operator, OPERATORS)
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    problem.check()
    began = time.monotonic()
    loss, accuracy = problem.evaluate()
    if not math.isfinite(loss):
        raise WorkError(f"the loss is {loss} at these weights")
    again = problem.mean_loss()
    if not math.isclose(loss, again, rel_tol=1e-6):
        raise InputError(
            f"the loss differs between two evaluations ({loss:.6g}, {again:.6g}): curvature needs a"
            " model that is deterministic in evaluation mode"
        )
    matrix = OPERATORS[operator](problem.model, problem.loss, problem.batches)

    def generator(name: str) -> Any:
        return seeds.generator(seed, name, device=matrix.device)

    spectrum = eigenpairs(
        matrix, top, tol=tol, generator=generator("lambda_max"), progress=progress
    )
    found = trace(matrix, probes=probes, generator=generator("trace"), progress=progress)
    density = spectral_density(matrix, generator=generator("density"), progress=progress)
    known: dict[str, Measurement] = {}
    if operator == "hessian":  # no product is made twice, and λ_max is known to a finer tol
        known["lambda_max"] = of_spectrum(spectrum, tol=tol, seed=seed)
        known["trace"] = of_trace(found, seed=seed)
    measured = {}
    progress.start("metrics", len(metrics))
    for name in metrics:
        result = known.get(name) or METRICS[name].measure(
            problem.model, problem.loss, problem.batches, seed=seed
        )
        measured[name] = dataclasses.asdict(result)
        progress.advance(note=name)
    return {
        "operator": operator,
        "n_samples": problem.n_samples,
        "n_parameters": problem.n_parameters,
        "loss": loss,
        "accuracy": accuracy,
        "weight_norm": problem.weight_norm(),
        "eigenvalues": [dataclasses.asdict(pair) for pair in spectrum.largest],
        "smallest_eigenvalue": dataclasses.asdict(spectrum.smallest),
        "stop": spectrum.stop,
        "trace": dataclasses.asdict(found),
        "density": dataclasses.asdict(density),
        "metrics": measured,
        "seed": seed,
        "cost": {"matvecs": matrix.products, "seconds": time.monotonic() - began},
    }
