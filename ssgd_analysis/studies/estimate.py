"""How long a study will take, from a short timed sample of every arm in every setting."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssgd_analysis import random_state
from ssgd_analysis.comparison.metric_kinds import is_flatness
from ssgd_analysis.flatness import METRICS, parse_metric
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.methods import When
from ssgd_analysis.studies.board import duration
from ssgd_analysis.studies.cells import Cell
from ssgd_analysis.training.setup import prepare

SAMPLE = 0.1  # seconds of steps that are timed for each arm in each setting
TINY_LR = 1e-30  # moves no weight
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 spread evenly, however many


@dataclass(frozen=True)
class CostEstimate:
    """What a study's runs are expected to cost.

    Args:
        runs: to train, those that are there already included.
        passes: forward-backward passes over a minibatch, of all runs.
        training: seconds of one process for all training, one run after another.
        measuring: seconds of one process for all metrics.
        jobs: processes at once.
    """

    runs: int
    passes: float
    training: float
    measuring: float
    jobs: int

    def words(self) -> str:
        """One line."""
        whole = (self.training + self.measuring) / self.jobs
        return (
            f"{self.runs} runs, {self.passes:,.0f} forward-backward passes: about"
            f" {duration(whole)} with {self.jobs} processes, from a timed sample of steps"
            f" (training {duration(self.training / self.jobs)}, measuring"
            f" {duration(self.measuring / self.jobs)})"
        )


def estimate_cost(cells: Sequence[Cell], jobs: int) -> CostEstimate:
    """Time some steps of the first run of every arm in every setting, and its metrics.

    Args:
        cells: all runs.
        jobs: processes at once.

    Raises:
        InputError: data that is not there, or parts that do not fit.
    """
    found: dict[tuple[str, str, bool], tuple[int, float, float]] = {}
    measured: dict[tuple[str, ...], float] = {(): 0.0}
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have
    passes = training = measuring = 0.0
    try:
        for cell in cells:
            key = (cell.setting, cell.arm, cell.trial is None)
            if key not in found:
                with random_state.seeded(cell.config.seed):
                    found[key] = _timed(cell, measured)
            steps, step, epoch = found[key]
            config = cell.config
            own = config.method_class.passes_per_step(config.method_settings())
            passes += config.epochs * steps * own
            training += config.epochs * (steps * step + epoch)
            measuring += measured[cell.metrics]
    finally:
        torch.set_num_threads(before)
    return CostEstimate(len(cells), passes, training, measuring, jobs)


def _timed(cell: Cell, measured: dict[tuple[str, ...], float]) -> tuple[int, float, float]:
    """Steps of an epoch, seconds of a step, seconds of an epoch's evaluation."""
    training = prepare(cell.config)
    size, steps = training.step_size, training.steps_per_epoch
    if not steps:
        measured.setdefault(cell.metrics, 0.0)
        return 0, 0.0, 0.0
    if cell.metrics not in measured:  # before the steps: at finite weights
        measured[cell.metrics] = _measuring(cell, training)
    step = _step_seconds(cell, training, size)
    began = time.monotonic()
    for problem in training.splits.values():
        problem.evaluate()
    epoch = time.monotonic() - began
    return steps, step, epoch


def _step_seconds(cell: Cell, training: Any, size: int) -> float:
    """Seconds of a mean step, by the passes that its settings make it cost on average.

    The sample's steps lie all over the training: noise that starts late, or a pass that only each
    k-th step makes, counts with its share.
    """
    passes = training.passes
    for group in passes.optimizer.param_groups:
        group["lr"] = TINY_LR  # too large a learning rate is no matter of time
    batch = next(training.data.train.minibatches(size, torch.Generator().manual_seed(0)))
    training.model.train()
    count, spent, began = -1, 0.0, time.monotonic()
    while count < 1 or time.monotonic() - began < SAMPLE:
        if count == 0:  # the first step makes buffers
            spent, began = passes.examples, time.monotonic()
        # noise that is tied to the learning rate is as at its peak
        when = When(step=count + 1, fraction_done=(0.5 + GOLDEN * count) % 1)
        training.method.attempt(batch, when)
        count += 1
    made = (passes.examples - spent) / passes.batch_size
    mean = cell.config.method_class.passes_per_step(cell.config.method_settings())
    return (time.monotonic() - began) * mean / made


def _measuring(cell: Cell, training: Any) -> float:
    """Seconds of a run's metrics."""
    began = time.monotonic()
    problem = training.splits["train"]
    for metric in filter(is_flatness, cell.metrics):
        name, settings = parse_metric(metric)
        METRICS[name].on(MetricContext(problem, cell.config.seed), **settings)
    return time.monotonic() - began
