"""Measures problems in memory: one, or several of which each starts where the last one ended."""

import time
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssgd_analysis.curvature import Options
from ssgd_analysis.curvature.products.plan import Plan, describe
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Prefixed, Progress
from ssgd_analysis.sharpness.build import build, planned_operator, share_of_time
from ssgd_analysis.sharpness.record import SharpnessRecord, SharpnessRecords
from ssgd_analysis.sharpness.settings import SharpnessSettings
from ssgd_analysis.sharpness.vectors import save_vectors
from ssgd_analysis.store import KeyedStore


def measure(
    problem: Problem,
    *,
    operator: str = "hessian",
    top: int = 5,
    tol: float = 1e-4,
    probes: int = 32,
    trace_tol: float | None = None,
    metrics: Sequence[str] = (),
    curves: bool = False,
    per_layer: bool = False,
    cross_check: bool = False,
    rescale_check: bool = False,
    rescale_factor: float = 5.0,
    time_budget: float | None = None,
    options: Options | None = None,
    seed: int = 0,
    name: str = "model",
    progress: Progress = SILENT,
) -> SharpnessRecord:
    """Loss, spectrum and flatness metrics of a problem, with errors and cost.

    Args:
        problem: what is measured.
        operator: a name of :data:`ssgd_analysis.curvature.OPERATORS`.
        top: how many of the largest eigenvalues.
        tol: relative residual at which they are accepted.
        probes: random probes of the trace.
        trace_tol: go on with probes until the trace's relative standard error is below.
        metrics: names, with settings as ``expected:sigma=0.2,law=binary``, or ``all``.
        curves: every metric that has a radius over its grid of radii too.
        per_layer: λ_max and trace of every layer's diagonal block too.
        cross_check: PyHessian's eigenvalues beside ours.
        rescale_check: how far each metric moves when weights are rescaled and the function stays.
        rescale_factor: of that check; its inverse is tried, too.
        time_budget: seconds; what does not fit has the value ``None`` and says ``why``.
        options: how products are made.
        seed: of all that is random; one seed gives every problem the same probes.
        name: of the checkpoint in the record.
        progress: shows every step.

    Returns:
        The record; eigenvalues in nats per squared weight unit.

    Raises:
        InputError: an unknown name, or a problem that can't be measured.
        WorkError: the loss is not finite.

    Example:
        >>> import torch
        >>> x, y = torch.eye(3), torch.zeros(3, 1)
        >>> problem = Problem(torch.nn.Linear(3, 1, bias=False), torch.nn.MSELoss(), [(x, y)])
        >>> record = measure(problem, top=1, metrics=["sam"])
        >>> round(record.to_json()["eigenvalues"][0]["value"], 4)  # the loss is |w|² / 3
        0.6667
    """
    settings = SharpnessSettings(
        operator=operator,
        top=top,
        tol=tol,
        probes=probes,
        trace_tol=trace_tol,
        metrics=list(metrics),
        curves=curves,
        per_layer=per_layer,
        cross_check=cross_check,
        rescale_check=rescale_check,
        rescale_factor=rescale_factor,
        options=options or Options(),
        seed=seed,
    )
    one = CheckpointProblem(name, problem)
    return measure_checkpoints(
        [one], settings, time_budget=time_budget, progress=progress
    ).checkpoints[0]


@dataclass(frozen=True)
class CheckpointProblem:
    """A checkpoint to measure.

    Args:
        name: shown, and in the record.
        problem: its loss over the examples.
        split: whose examples these are.
        code: hashes of the code of model, data and loss; a record is resumed only at equal ones.
        loss_name: name or reference of the loss; empty: it has none.
        notes: what a reader should know about how it was opened.
    """

    name: str
    problem: Problem
    split: str | None = None
    code: Sequence[str] = ()
    loss_name: str = ""
    notes: Sequence[str] = ()


def measure_checkpoints(
    checkpoints: Iterable[CheckpointProblem],
    settings: SharpnessSettings,
    *,
    count: int | None = None,
    time_budget: float | None = None,
    folder: Path | None = None,
    resume: bool = False,
    with_vectors: bool = False,
    progress: Progress = SILENT,
) -> SharpnessRecords:
    """Measure several checkpoints; the eigenvectors of one start the search of the next.

    Args:
        checkpoints: may be made one by one, so that the examples of one are in memory.
        settings: what to measure.
        count: how many there are, for their shares of the time; default: their number, or one
            where they are made one by one.
        time_budget: seconds for all of them.
        folder: where finished checkpoints are stored; ``None``: nowhere.
        resume: take finished checkpoints from the folder.
        with_vectors: write eigenvectors to ``vectors-NNN.safetensors`` there.
        progress: shows every step.

    Raises:
        InputError: a problem that can't be measured, a damaged file, or no folder where one is
            needed.
        WorkError: a loss is not finite, or the disk is full.
    """
    if folder is None and (with_vectors or resume):
        raise InputError(f"--{'save-vectors' if with_vectors else 'resume'} needs --out")
    total = count or (len(checkpoints) if isinstance(checkpoints, Sized) else 1)
    ends = None if time_budget is None else time.monotonic() + time_budget
    store = None if folder is None else KeyedStore(folder / "checkpoints")
    found: list[SharpnessRecord] = []
    last: SharpnessRecord | None = None  # of those measured now: it has vectors
    for index, one in enumerate(checkpoints):
        entry, key = f"{index:03d}", _key(one, settings, time_budget) if store else {}
        if store and resume and (stored := _stored(store, entry, key, with_vectors, progress)):
            progress.say(f"{one.name}: taken from {store.path(entry)}")
            found.append(SharpnessRecord(one.name, one.split, stored))
            continue
        now = time.monotonic()
        deadline = None if ends is None else share_of_time(max(ends, now), max(1, total - index))
        last = _measured(one, settings, last, deadline, progress)
        if with_vectors and folder:
            path = folder / f"vectors-{entry}.safetensors"
            save_vectors(path, last)
            last.document["vectors"] = str(path)
        if store:
            store.write(entry, key, last.document)
        found.append(last)
    return SharpnessRecords(tuple(found))


def _stored(
    store: KeyedStore, entry: str, key: Mapping[str, Any], with_vectors: bool, progress: Progress
) -> Any:
    """A finished checkpoint; ``None`` where there is none, or its vectors are missing."""
    found = store.read(entry, key)
    vectors = (found or {}).get("vectors")
    if found and with_vectors and not (vectors and Path(vectors).is_file()):
        progress.say(
            f"{store.path(entry)} has no eigenvectors, so the checkpoint is measured again"
        )
        return None
    return found


def _key(
    one: CheckpointProblem, settings: SharpnessSettings, time_budget: float | None
) -> dict[str, Any]:
    """All that the numbers of a checkpoint depend on."""
    return {
        "problem": one.problem.fingerprint(),
        "parameters": list(one.problem.parameters),
        "shares": one.problem.shares,
        "precision": str(one.problem.dtype),
        "device": str(one.problem.device),
        "split": one.split,
        "code": list(one.code),
        "settings": settings,
        "time_budget": time_budget,
    }


def _measured(
    one: CheckpointProblem,
    settings: SharpnessSettings,
    last: SharpnessRecord | None,
    deadline: float | None,
    progress: Progress,
) -> SharpnessRecord:
    shapes = {name: parameter.shape for name, parameter in one.problem.parameters.items()}
    start: Tensor | None = last.vectors if last and last.parameters == shapes else None
    stage = Prefixed(progress, f"{one.name}: ")
    operator = planned_operator(one.problem, settings, stage)
    stage.say(describe_plan(operator.engine.plan, settings))
    document, vectors = build(
        operator, one.problem, settings, start=start, deadline=deadline, progress=stage
    )
    named = {"loss_name": one.loss_name or None, "notes": [*one.notes, *document["notes"]]}
    return SharpnessRecord(one.name, one.split, {**document, **named}, vectors, shapes)


def predicted_plan(
    one: CheckpointProblem, settings: SharpnessSettings, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """How products would be made, and the memory and time that it would take; measures little.

    Returns:
        ``checkpoint``, ``split`` and ``plan``: the fields of
        :class:`ssgd_analysis.curvature.products.plan.Plan`, ``peak`` (bytes), ``products``,
        ``seconds``, and ``text``, all of it in one line.
    """
    stage = Prefixed(progress, f"{one.name}: ")
    found = planned_operator(one.problem, settings, stage).engine.plan
    facts = {
        **found.to_json(),
        "products": settings.products,
        "seconds": _seconds(found, settings),
        "text": describe_plan(found, settings),
    }
    return {"checkpoint": one.name, "split": one.split, "plan": facts}


def describe_plan(found: Plan, settings: SharpnessSettings) -> str:
    """A plan in one line, with the time that all products will take."""
    took = _duration(_seconds(found, settings))
    return f"{describe(found)}; about {settings.products} products, {took}"


def _seconds(found: Plan, settings: SharpnessSettings) -> float:
    return (found.setup or 0.0) + settings.products * (found.product or 0.0)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
