"""The document of one problem, stage by stage: survey, cross-fit, layers, metrics, checks."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature import (
    OPERATORS,
    BlockDiagonalOperator,
    HessianOperator,
    ProblemOperator,
    Survey,
    block_eigenpairs,
    cross_fit,
    layer_traces,
    survey,
)
from ssgd_analysis.errors import OutOfTimeError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import Progress
from ssgd_analysis.sharpness.cross_check import cross_check_pyhessian
from ssgd_analysis.sharpness.metrics import measure_metrics
from ssgd_analysis.sharpness.rescale_check import rescale_check
from ssgd_analysis.sharpness.settings import DENSITY_PROBES, DENSITY_STEPS, SharpnessSettings

MEASURING_TIME = 0.75  # share of a time budget for the survey, if only the cross-fit follows
SHARED_TIME = 0.5  # the same, if layers or metrics follow too


def planned_operator(
    problem: Problem, settings: SharpnessSettings, progress: Progress
) -> ProblemOperator:
    """The operator, its products planned; nothing is measured yet but their time.

    Raises:
        InputError: a problem that does not fit together, or can't be measured.
        WorkError: the loss is not finite.
    """
    operator = OPERATORS[settings.operator](problem, options=settings.options)
    operator.prepare(settings.products, progress, plans=settings.plans)
    for note in problem.notes:
        progress.warn(note)
    return operator


def build(
    operator: ProblemOperator,
    problem: Problem,
    settings: SharpnessSettings,
    *,
    start: Tensor | None,
    deadline: float | None,
    progress: Progress,
) -> tuple[dict[str, Any], Tensor]:
    """All that settings ask for: the document, and the unit eigenvectors, shape (P, K).

    Args:
        operator: of this problem, prepared.
        problem: what is measured.
        settings: what of it.
        start: eigenvectors of a like problem to start from, shape (P, m).
        deadline: of ``time.monotonic()``: the stages share the time until then.
        progress: shows every step.

    Raises:
        InputError: a problem that can't be measured.
        WorkError: the loss is not finite.
    """
    rescaling = settings.rescale_check
    until = share_of_time(deadline, 1 + settings.cross_check + rescaling)
    document, vectors = _measure(operator, problem, settings, start, until, progress)
    if settings.cross_check:
        until = share_of_time(deadline, 1 + rescaling)
        document["cross_check"] = cross_check_pyhessian(
            problem, settings.top, seed=settings.seed, deadline=until
        )
    if settings.rescale_check:
        try:
            document["rescale_check"] = rescale_check(
                problem,
                [m for m, found in document["metrics"].items() if found["value"] is not None],
                factor=settings.rescale_factor,
                seed=settings.seed,
                options=settings.options,
                deadline=deadline,
                progress=progress,
            )
        except OutOfTimeError as error:
            document["rescale_check"] = {"factor": settings.rescale_factor, "why": str(error)}
    return document, vectors


def _measure(
    operator: ProblemOperator,
    problem: Problem,
    settings: SharpnessSettings,
    start: Tensor | None,
    deadline: float | None,
    progress: Progress,
) -> tuple[dict[str, Any], Tensor]:
    began = time.monotonic()
    loss, accuracy = problem.evaluate()
    if not math.isfinite(loss):
        raise WorkError(f"the loss is {loss} at these weights")
    found = _survey(operator, settings, start, deadline, progress)
    spectrum = found.spectrum
    extra = 0.0
    eigenvalues = [dataclasses.asdict(pair) for pair in spectrum.largest]
    with_metrics = bool(settings.metrics)
    if len(problem.batches) > 1:
        until = share_of_time(deadline, 1 + settings.per_layer + with_metrics)
        extra += _cross_fitted(operator, settings, spectrum.vectors, eigenvalues, until, progress)
    layers = None
    if settings.per_layer:
        until = share_of_time(deadline, 1 + with_metrics)
        layers, products = _layers(operator, settings, until, progress)
        extra += products
    metrics, of_metrics = _metrics(operator, problem, settings, found, deadline, progress)
    extra += of_metrics
    checks = operator.engine.checks
    document = {
        "operator": settings.operator,
        "n_samples": problem.n_samples,
        "notes": problem.notes,
        "n_parameters": problem.n_parameters,
        "loss": loss,
        "accuracy": accuracy,
        "weight_norm": problem.weight_norm(),
        "eigenvalues": eigenvalues,
        "smallest_eigenvalue": dataclasses.asdict(spectrum.smallest),
        "stop": spectrum.stop,
        "check": None if spectrum.check is None else dataclasses.asdict(spectrum.check),
        "checks": None if checks is None else dataclasses.asdict(checks),
        "trace": dataclasses.asdict(found.trace),
        "density": dataclasses.asdict(found.density),
        "metrics": metrics,
        "seed": settings.seed,
        # times and bytes depend on the machine's moment: they would break exact repetition
        "plan": {
            "way": operator.engine.plan.strategy,
            "micro_batch": operator.engine.plan.micro_batch,
        },
        "cost": {
            "matvecs": math.ceil(operator.products + extra),
            "seconds": time.monotonic() - began,
        },
    }
    if layers is not None:
        document["layers"] = layers
    return document, spectrum.vectors


def _survey(
    operator: ProblemOperator,
    settings: SharpnessSettings,
    start: Tensor | None,
    deadline: float | None,
    progress: Progress,
) -> Survey:
    """Eigenvalues, trace and density, in their share of the time."""
    now = time.monotonic()
    part = SHARED_TIME if settings.per_layer or settings.metrics else MEASURING_TIME
    return survey(
        operator,
        settings.top,
        seed=settings.seed,
        tol=settings.tol,
        probes=settings.probes,
        density_probes=min(DENSITY_PROBES, settings.probes),
        density_steps=DENSITY_STEPS,
        start=start,
        trace_tol=settings.trace_tol,
        deadline=None if deadline is None else now + part * (deadline - now),
        progress=progress,
    )


def _metrics(
    operator: ProblemOperator,
    problem: Problem,
    settings: SharpnessSettings,
    found: Survey,
    deadline: float | None,
    progress: Progress,
) -> tuple[dict[str, Any], float]:
    """The metrics, which share the survey where it is the Hessian's; and their own products."""
    own = operator if isinstance(operator, HessianOperator) else None
    context = MetricContext(
        problem, settings.seed, options=settings.options, operator=own, deadline=deadline
    )
    if own:  # no product is made twice
        context.provide("survey", found)
    operator.deadline = deadline
    try:
        metrics = measure_metrics(
            context,
            settings.metric_names,
            optional=settings.optional,
            curves=settings.curves,
            progress=progress,
        )
    finally:
        operator.deadline = None
    # those of a shared operator are counted by it
    return metrics, context.cost.products - (own.products if own else 0)


def share_of_time(deadline: float | None, stages: int) -> float | None:
    """The deadline of the next of so many stages, which share the time that is left."""
    now = time.monotonic()
    return None if deadline is None else now + (deadline - now) / stages


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _generator(operator: ProblemOperator, seed: int, name: str) -> torch.Generator:
    return seeds.generator(seed, name, device=operator.device)


def _cross_fitted(
    operator: ProblemOperator,
    settings: SharpnessSettings,
    vectors: Tensor,
    eigenvalues: list[dict[str, Any]],
    deadline: float | None,
    progress: Progress,
) -> float:
    """Put each eigenvalue's downward-biased partner beside it; returns the products spent."""
    if _over(deadline):
        for entry in eigenvalues:
            entry["cross_fit"] = {"value": None, "stderr": None, "why": str(OutOfTimeError())}
        return 0.0
    half_a, half_b = operator.halves()
    crossed = cross_fit(
        half_a,
        half_b,
        vectors,
        len(eigenvalues),
        generator=_generator(operator, settings.seed, "cross_fit"),
        share_a=half_a.share,
        deadline=deadline,
        progress=progress,
    )
    errors: Sequence[float | None] = crossed.stderr or [None] * len(crossed.values)
    for entry, value, error in zip(eigenvalues, crossed.values, errors, strict=True):
        entry["cross_fit"] = {"value": value, "stderr": error}
    return half_a.share * half_a.products + half_b.share * half_b.products


def _layers(
    operator: ProblemOperator,
    settings: SharpnessSettings,
    deadline: float | None,
    progress: Progress,
) -> tuple[list[dict[str, Any]], int]:
    """λ_max and trace of every layer's block, all layers in the same sweeps; and the products."""
    blocks = BlockDiagonalOperator(operator)
    rows_of_layers = list(blocks.layers.values())
    sizes = [
        {"name": name, "n_parameters": rows.stop - rows.start}
        for name, rows in blocks.layers.items()
    ]
    if _over(deadline):
        nothing = {"lambda_max": None, "trace": None, "why": str(OutOfTimeError())}
        return [{**size, **nothing} for size in sizes], 0
    spectra = block_eigenpairs(
        blocks,
        rows_of_layers,
        1,
        generator=_generator(operator, settings.seed, "layers"),
        tol=settings.tol,
        smallest=False,
        deadline=share_of_time(deadline, 2),
        progress=progress,
    )
    traces = layer_traces(
        operator,
        rows_of_layers,
        generator=_generator(operator, settings.seed, "layer traces"),
        probes=settings.probes,
        deadline=deadline,
        progress=progress,
    )
    rows = [
        {
            **size,
            "lambda_max": dataclasses.asdict(spectrum.largest[0]),
            "trace": dataclasses.asdict(trace),
        }
        for size, spectrum, trace in zip(sizes, spectra, traces, strict=True)
    ]
    return rows, blocks.products
