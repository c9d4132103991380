"""The values at the points of one line or plane: which are to be computed, by whom, and kept."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssgd_analysis.landscape.adaptive import fill, refine
from ssgd_analysis.landscape.evaluation import EvaluationPlan, Evaluator, measured_plan
from ssgd_analysis.landscape.grid import Grid
from ssgd_analysis.landscape.partial import PartialResults
from ssgd_analysis.landscape.settings import LandscapeSettings
from ssgd_analysis.landscape.slice import LandscapeSlice
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks

SHARE = 0.25  # of the points that --adaptive measures, at most
Plans = dict[str, dict[str, Any]]  # split → how its points are evaluated


class GridSampler:
    """Computes the points of a frame.

    Args:
        frame: the line or plane.
        settings: what to draw.
        grid: filled in place.
        number: of the grid, for ``keep``.
        keep: where to keep what is done.
        plans: how points are evaluated; default: as each evaluator's own rules say.
        tune: find the plans by a short measurement instead.
        ranks: the processes that share the work.
        progress: told of every point.
    """

    def __init__(
        self,
        frame: LandscapeSlice,
        settings: LandscapeSettings,
        grid: Grid,
        number: int,
        *,
        keep: PartialResults | None = None,
        plans: Plans | None = None,
        tune: bool = False,
        ranks: Ranks = SINGLE,
        progress: Progress = SILENT,
    ) -> None:
        self.frame, self.settings, self.grid, self.number = frame, settings, grid, number
        self.keep, self.plans, self.ranks, self.progress = keep, dict(plans or {}), ranks, progress
        self.tune = tune
        self._evaluators: list[Evaluator] = []

    def all(self) -> dict[str, Any]:
        """Compute all points that are not done, block by block.

        Returns:
            How many were measured, and no error of interpolation.
        """
        self._begin(self.grid.done.size)
        for block in self.grid.blocks()[self.ranks.rank :: self.ranks.size]:
            if not self.grid.done[tuple(block.T)].all():
                self._compute(block)
                self._save()
        self._join()
        return {"measured": self.grid.done.size, "error": None}

    def some(self) -> dict[str, Any]:
        """Compute a quarter of the points, and interpolate the rest.

        Returns:
            How many were measured, and the error of the interpolation.
        """
        self._begin(int(SHARE * self.grid.done.size))
        marks = [self.grid.index_of(mark.place) for mark in self.frame.marks]
        required = [index for index in marks if index is not None]
        found = refine(self.grid.axes, self._measured, share=SHARE, required=required)
        values = self.grid.values
        values["loss"], values["accuracy"] = found.loss, found.accuracy
        if "test_loss" in values:
            test = fill(
                self.grid.axes, found.measured, values["test_loss"], values["test_accuracy"]
            )
            values["test_loss"], values["test_accuracy"] = test
        whole = found.measured.all()
        error = {name: getattr(found, name) for name in ("rms", "max", "points", "shown", "log")}
        return {"measured": int(found.measured.sum()), "error": None if whole else error}

    def _begin(self, total: int) -> None:
        self.progress.start("landscape", total)
        self.progress.advance(int(self.grid.done.sum()))

    def _measured(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        missing = indices[~self.grid.done[tuple(indices.T)]]
        if len(missing):
            mine = np.array_split(missing, self.ranks.size)[self.ranks.rank]
            if len(mine):
                self._compute(mine)
            self._join()
            self._save()
        at = tuple(indices.T)
        return self.grid.values["loss"][at], self.grid.values["accuracy"][at]

    def _compute(self, indices: np.ndarray) -> None:
        places, at = self.grid.places(indices), tuple(indices.T)
        for prefix, evaluator in zip(("", "test_"), self._ready(), strict=False):
            loss, accuracy = evaluator.evaluate(places)
            self.grid.values[f"{prefix}loss"][at] = np.where(np.isfinite(loss), loss, np.nan)
            # what a network says where its loss is not finite is no accuracy
            self.grid.values[f"{prefix}accuracy"][at] = np.where(
                np.isfinite(loss), accuracy, np.nan
            )
        if self._own_losses:
            self._take_marks()
        self.grid.done[at] = True
        self.progress.advance(len(indices))

    def _ready(self) -> Sequence[Evaluator]:
        """The evaluators of the splits, made when the first point is needed."""
        if self._evaluators:
            return self._evaluators
        settings, frame = self.settings, self.frame
        for name, problem in zip(("main", "test"), frame.subject.problems, strict=False):
            ends = [(axis[0], axis[-1]) for axis in self.grid.axes]
            options: dict[str, Any] = {
                "check": np.array([[0.0] * len(ends), *zip(*ends, strict=True)]),
                "move_rest": frame.move_rest,
                "recalibrate": (
                    list(frame.subject.calibration) if settings.bn == "recalibrate" else None
                ),
                "precision": settings.precision,
            }
            if name not in self.plans and self.tune:
                measure = functools.partial(measured_plan, problem, frame.directions, **options)
                plan = self.ranks.once(measure)
                self.plans[name] = dataclasses.asdict(plan)
            given = EvaluationPlan(**self.plans[name]) if name in self.plans else None
            evaluator = Evaluator(problem, frame.directions, plan=given, **options)
            self.plans[name] = dataclasses.asdict(evaluator.plan)
            self._evaluators.append(evaluator)
        return self._evaluators

    @property
    def _own_losses(self) -> bool:
        """Whether a checkpoint's place shows its own loss, to the last bit.

        Among points in bfloat16 it would stand out.
        """
        return self.settings.precision == "fp32"

    def _take_marks(self) -> None:
        for mark in self.frame.marks:
            index = self.grid.index_of(mark.place)
            for name, values in self.grid.values.items() if index is not None else ():
                values[index] = mark.values[name]

    def _join(self) -> None:
        """Take what the other processes have computed."""
        for done, values in self.ranks.gather((self.grid.done, self.grid.values)):
            new = done & ~self.grid.done
            for name, own in self.grid.values.items():
                own[new] = values[name][new]
            self.grid.done |= new

    def _save(self) -> None:
        if self.keep is not None:
            self.keep.save(self.number, self.grid, self.plans)
