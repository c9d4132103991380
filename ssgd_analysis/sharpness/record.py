"""Everything that `sharpness` reports of one problem."""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature import (
    OPERATORS,
    BlockDiagonalOperator,
    HessianOperator,
    Options,
    ProblemOperator,
    block_eigenpairs,
    cross_fit,
    layer_traces,
    survey,
)
from ssgd_analysis.curvature.operators.block_diagonal import NO_BLOCKS, has_blocks
from ssgd_analysis.errors import InputError, OutOfTimeError, WorkError, unknown
from ssgd_analysis.flatness import MetricContext, resolve
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.sharpness.request import metrics_or_why

DENSITY_PROBES, DENSITY_STEPS = 4, 40
MEASURING_TIME = 0.75  # share of a time budget for the survey, if only the cross-fit follows
SHARED_TIME = 0.5  # the same, if layers or metrics follow too


@dataclass(frozen=True)
class Request:
    """What to measure.

    Args:
        operator: a name of :data:`ssgd_analysis.curvature.OPERATORS`.
        top: how many of the largest eigenvalues.
        tol: relative residual at which they are accepted.
        probes: random probes of the trace.
        trace_tol: go on with probes until the trace's relative standard error is below.
        metrics: names of :data:`ssgd_analysis.flatness.METRICS`, with settings as
            ``expected:sigma=0.2,law=binary``.
        optional: a metric that this problem does not have is ``None`` with the reason ``why``,
            instead of an error.
        curves: every metric that has a radius over its grid of radii too.
        per_layer: λ_max and trace of every layer's diagonal block too.
        options: how products are made.
        plans: folder of plans that were measured before.
        seed: of all that is random; one seed gives every problem the same probes.

    Raises:
        InputError: an unknown operator or metric.
    """

    operator: str = "hessian"
    top: int = 5
    tol: float = 1e-4
    probes: int = 32
    trace_tol: float | None = None
    metrics: Sequence[str] = ()
    optional: bool = False
    curves: bool = False
    per_layer: bool = False
    options: Options = field(default_factory=Options)
    plans: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise unknown("operator", self.operator, OPERATORS)
        if self.per_layer and not has_blocks(OPERATORS[self.operator]):
            raise InputError(NO_BLOCKS)
        for text in self.metrics:
            resolve(text)

    @property
    def products(self) -> int:
        """About how many products it will take: the search for eigenvalues is a guess."""
        return 50 + 8 * self.top + DENSITY_PROBES * DENSITY_STEPS + self.probes


@dataclass(frozen=True)
class Sharpness:
    """What was found.

    Args:
        record: the JSON object of one checkpoint (see ``docs/interface.md``), without its name.
        vectors: unit eigenvectors of its eigenvalues, shape (P, K).
        parameters: shape of each parameter in the order of the vectors.
    """

    record: dict[str, Any]
    vectors: Tensor
    parameters: dict[str, torch.Size]


def prepared(problem: Problem, request: Request, *, progress: Progress = SILENT) -> ProblemOperator:
    """The operator, its products planned; nothing is measured yet but their time.

    Raises:
        InputError: a problem that does not fit together, or can't be measured.
        WorkError: the loss is not finite.
    """
    operator = OPERATORS[request.operator](problem, options=request.options)
    operator.prepare(request.products, progress, plans=request.plans)
    for note in problem.notes:
        progress.warn(note)
    return operator


def measure(
    problem: Problem,
    request: Request,
    *,
    operator: ProblemOperator | None = None,
    start: Tensor | None = None,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Sharpness:
    """Loss, spectrum and metrics of a problem, with errors and cost.

    Args:
        problem: what to measure.
        request: what of it.
        operator: of this problem, if it was prepared before.
        start: eigenvectors of a like problem to start from, shape (P, m).
        deadline: of ``time.monotonic()``: the best that can be had until then. Survey, cross-fit,
            layers and metrics share the time; what does not fit has the value ``None`` and says
            ``why``. The loss, one certificate for each eigenvalue and two steps of the density are
            made in any case.
        progress: told of every step.

    Raises:
        InputError: a problem that does not fit together, or can't be measured.
        WorkError: the loss is not finite.
    """
    began = time.monotonic()
    operator = operator or prepared(problem, request, progress=progress)
    loss, accuracy = problem.evaluate()
    if not math.isfinite(loss):
        raise WorkError(f"the loss is {loss} at these weights")
    now = time.monotonic()
    part = SHARED_TIME if request.per_layer or request.metrics else MEASURING_TIME
    found = survey(
        operator,
        request.top,
        seed=request.seed,
        tol=request.tol,
        probes=request.probes,
        density_probes=min(DENSITY_PROBES, request.probes),
        density_steps=DENSITY_STEPS,
        start=start,
        trace_tol=request.trace_tol,
        deadline=None if deadline is None else now + part * (deadline - now),
        progress=progress,
    )
    spectrum = found.spectrum
    extra = 0.0
    eigenvalues = [dataclasses.asdict(pair) for pair in spectrum.largest]
    after = 1 + request.per_layer + bool(request.metrics)  # stages to come
    if len(problem.batches) > 1:
        until = _share(deadline, after)
        extra += _cross_fitted(operator, request, spectrum.vectors, eigenvalues, until, progress)
    layers = None
    if request.per_layer:
        until = _share(deadline, 1 + bool(request.metrics))
        layers, products = _layers(operator, request, until, progress)
        extra += products
    own = operator if isinstance(operator, HessianOperator) else None
    context = MetricContext(
        problem, request.seed, options=request.options, operator=own, deadline=deadline
    )
    if own:  # no product is made twice
        context.keep("survey", found)
    operator.deadline = deadline
    try:
        metrics = metrics_or_why(
            context,
            request.metrics,
            optional=request.optional,
            curves=request.curves,
            progress=progress,
        )
    finally:
        operator.deadline = None
    # the metrics' own; those of a shared operator are counted by it
    extra += context.cost.products - (own.products if own else 0)
    record = {
        "operator": request.operator,
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
        "checks": None
        if operator.engine.checks is None
        else dataclasses.asdict(operator.engine.checks),
        "trace": dataclasses.asdict(found.trace),
        "density": dataclasses.asdict(found.density),
        "metrics": metrics,
        "seed": request.seed,
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
        record["layers"] = layers
    shapes = {name: parameter.shape for name, parameter in problem.parameters.items()}
    return Sharpness(record, spectrum.vectors, shapes)


def _share(deadline: float | None, stages: int) -> float | None:
    """The deadline of the next of so many stages, which share the time that is left."""
    now = time.monotonic()
    return None if deadline is None else now + (deadline - now) / stages


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _generator(operator: ProblemOperator, seed: int, name: str) -> torch.Generator:
    return seeds.generator(seed, name, device=operator.device)


def _cross_fitted(
    operator: ProblemOperator,
    request: Request,
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
        generator=_generator(operator, request.seed, "cross_fit"),
        share_a=half_a.share,
        deadline=deadline,
        progress=progress,
    )
    errors: Sequence[float | None] = crossed.stderr or [None] * len(crossed.values)
    for entry, value, error in zip(eigenvalues, crossed.values, errors, strict=True):
        entry["cross_fit"] = {"value": value, "stderr": error}
    return half_a.share * half_a.products + half_b.share * half_b.products


def _layers(
    operator: ProblemOperator, request: Request, deadline: float | None, progress: Progress
) -> tuple[list[dict[str, Any]], int]:
    """λ_max and trace of every layer's block, all layers in the same sweeps; and the products."""
    blocks = BlockDiagonalOperator(operator)
    places = list(blocks.layers.values())
    sizes = [
        {"name": name, "n_parameters": place.stop - place.start}
        for name, place in blocks.layers.items()
    ]
    if _over(deadline):
        nothing = {"lambda_max": None, "trace": None, "why": str(OutOfTimeError())}
        return [{**size, **nothing} for size in sizes], 0
    spectra = block_eigenpairs(
        blocks,
        places,
        1,
        generator=_generator(operator, request.seed, "layers"),
        tol=request.tol,
        smallest=False,
        deadline=_share(deadline, 2),
        progress=progress,
    )
    traces = layer_traces(
        operator,
        places,
        generator=_generator(operator, request.seed, "layer traces"),
        probes=request.probes,
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
