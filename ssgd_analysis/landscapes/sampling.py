"""The values at the points of one slice: which process computes which, and what is stored."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssgd_analysis.landscapes.adaptive import fill, refine
from ssgd_analysis.landscapes.evaluation import EvaluationPlan, Evaluator, Plans, measured_plan
from ssgd_analysis.landscapes.grid import Grid
from ssgd_analysis.landscapes.partial import PartialResults
from ssgd_analysis.landscapes.slice import LandscapeSlice
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks
from ssgd_analysis.settings.landscape import LandscapeSettings

SHARE = 0.25  # of the points that --adaptive measures, at most


class GridSampler:
    """Computes the points of a slice.

    Args:
        slice_: the line or plane.
        settings: what to draw.
        grid: filled in place.
        number: of the grid, for ``partial``.
        partial: stores the points that are done; default: nothing is stored.
        plans: how points are evaluated, by split; see :class:`EvaluationPlan`.
        tune: find missing plans by a short measurement.
        ranks: the processes that share the work.
        progress: receives every point.
    """

    def __init__(
        self,
        slice_: LandscapeSlice,
        settings: LandscapeSettings,
        grid: Grid,
        number: int,
        *,
        partial: PartialResults | None = None,
        plans: Plans | None = None,
        tune: bool = False,
        ranks: Ranks = SINGLE,
        progress: Progress = SILENT,
    ) -> None:
        self.slice, self.settings, self.grid, self.number = slice_, settings, grid, number
        self.partial, self.ranks, self.progress = partial, ranks, progress
        self.plans, self.tune = dict(plans or {}), tune
        self._made: list[Evaluator] = []

    def full(self) -> dict[str, Any]:
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

    def adaptive(self) -> dict[str, Any]:
        """Compute a quarter of the points, and interpolate the rest.

        Returns:
            How many were measured, and the error of the interpolation.
        """
        self._begin(int(SHARE * self.grid.done.size))
        marks = [self.grid.index_of(mark.coordinates) for mark in self.slice.marks]
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
        coordinates, at = self.grid.coordinates(indices), tuple(indices.T)
        for prefix, evaluator in zip(("", "test_"), self._evaluators(), strict=False):
            loss, accuracy = evaluator.evaluate(coordinates)
            self.grid.values[f"{prefix}loss"][at] = np.where(np.isfinite(loss), loss, np.nan)
            # what a network says where its loss is not finite is no accuracy
            self.grid.values[f"{prefix}accuracy"][at] = np.where(
                np.isfinite(loss), accuracy, np.nan
            )
        if self._exact_marks:
            self._copy_marks()
        self.grid.done[at] = True
        self.progress.advance(len(indices))

    def _evaluators(self) -> Sequence[Evaluator]:
        """The evaluators of the splits, made when the first point is needed."""
        if self._made:
            return self._made
        settings, slice_ = self.settings, self.slice
        for name, problem in zip(("main", "test"), slice_.named.problems, strict=False):
            ends = [(axis[0], axis[-1]) for axis in self.grid.axes]
            options: dict[str, Any] = {
                "check": np.array([[0.0] * len(ends), *zip(*ends, strict=True)]),
                "move_rest": slice_.move_rest,
                "recalibrate": (
                    list(slice_.named.calibration) if settings.bn == "recalibrate" else None
                ),
                "precision": settings.precision,
            }
            if name not in self.plans and self.tune:
                measure = functools.partial(measured_plan, problem, slice_.directions, **options)
                plan = self.ranks.once(measure)
                self.plans[name] = plan.to_json()
            given = EvaluationPlan.from_json(self.plans[name]) if name in self.plans else None
            evaluator = Evaluator(problem, slice_.directions, plan=given, **options)
            self.plans[name] = evaluator.plan.to_json()
            self._made.append(evaluator)
        return self._made

    @property
    def _exact_marks(self) -> bool:
        """Whether the point of a checkpoint gets its own loss, to the last bit.

        It would stand out among points in bfloat16.
        """
        return self.settings.precision == "fp32"

    def _copy_marks(self) -> None:
        for mark in self.slice.marks:
            index = self.grid.index_of(mark.coordinates)
            for name, values in self.grid.values.items() if index is not None else ():
                values[index] = mark.values[name]

    def _join(self) -> None:
        """Copy the points that the other processes have computed."""
        for done, values in self.ranks.gather((self.grid.done, self.grid.values)):
            new = done & ~self.grid.done
            for name, own in self.grid.values.items():
                own[new] = values[name][new]
            self.grid.done |= new

    def _save(self) -> None:
        if self.partial is not None:
            self.partial.save(self.number, self.grid, self.plans)
