"""A plan that a clock chooses, for those who ask for it; see :class:`EvaluationPlan`."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions import Direction
from ssgd_analysis.landscapes.evaluation.evaluator import Evaluator
from ssgd_analysis.landscapes.evaluation.plan import EvaluationPlan
from ssgd_analysis.problem import Batch, Problem

SIZES = (0.25, 0.5, 2, 4)  # times the chunk of the default plan
ROUNDS, ENOUGH = 5, 2.0  # a plan is timed so often at most, and no longer than so many seconds


def measured_plan(
    problem: Problem,
    directions: list[Direction],
    *,
    move_rest: Callable[[Sequence[float]], None] | None = None,
    recalibrate: list[Batch] | None = None,
    precision: str = "fp32",
    check: np.ndarray | None = None,
) -> EvaluationPlan:
    """The fastest of the default plan, other sizes of its chunks, and the plain strategy.

    Args:
        problem: see :class:`Evaluator`, as for the others.
        directions: one or more.
        move_rest: moves buffers and frozen parameters.
        recalibrate: batches for BatchNorm's statistics.
        precision: ``fp32`` or ``bf16``.
        check: positions where strategies are compared with one another.

    Returns:
        A plan for :class:`Evaluator`; another call may choose otherwise, as clocks do.
    """

    def made(plan: EvaluationPlan | None) -> Evaluator:
        return Evaluator(
            problem,
            directions,
            move_rest=move_rest,
            recalibrate=recalibrate,
            precision=precision,
            plan=plan,
            check=check,
        )

    default = made(None)
    plans = [default.plan]
    if default.plan.strategy != "plain":
        sizes = sorted({min(int(s * default.plan.chunk), problem.n_samples) for s in SIZES} - {0})
        plans += [dataclasses.replace(default.plan, chunk=size) for size in sizes]
        plans.append(EvaluationPlan("plain", problem.n_samples, "faster by measurement"))
    positions = np.zeros((2, len(directions)))
    positions[1, -1] = 1.0
    seconds = []
    for plan in plans:
        try:
            evaluator = default if plan is default.plan else made(plan)
        except InputError:  # it does not fit
            seconds.append(float("inf"))
            continue
        times: list[float] = []
        while len(times) < ROUNDS and sum(times) < ENOUGH:
            began = time.perf_counter()
            evaluator.evaluate(positions)
            times.append(time.perf_counter() - began)
        seconds.append(min(times))
    return plans[int(np.argmin(seconds))]
