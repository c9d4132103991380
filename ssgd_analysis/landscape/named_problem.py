"""One checkpoint to draw."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssgd_analysis.landscape.directions import Vector
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.problem.recalibration import recalibration
from ssgd_analysis.weights import borrowed_buffers, borrowed_state


@dataclass(frozen=True)
class NamedProblem:
    """One checkpoint to draw.

    Args:
        name: for the legend.
        problem: at its weights.
        calibration: batches for ``bn="recalibrate"``; default: the problem's own.
        path: weights and buffers by name of its run's kept checkpoints, by step, for
            ``trajectory``.
        code: what model and loss are made of, as text: kept points of other code do not count.
        test: the same model's problem on the test split, if that is shown, too.
        vectors: a user's own directions.
    """

    name: str
    problem: Problem
    calibration: Sequence[Batch] = ()
    path: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    code: str = ""
    test: Problem | None = None
    vectors: Sequence[Vector] = ()

    @property
    def problems(self) -> list[Problem]:
        """Of the splits that are shown, the main one first."""
        return [self.problem] if self.test is None else [self.problem, self.test]

    def values(self, *, recalibrate: bool = False) -> dict[str, float]:
        """Loss and accuracy (NaN: none) of each split at the present weights, by name.

        Args:
            recalibrate: with BatchNorm's statistics estimated anew.
        """
        found = {}
        with borrowed_buffers(self.problem.model):
            if recalibrate:
                recalibration(self.problem, self.calibration)()
            for prefix, problem in zip(("", "test_"), self.problems, strict=False):
                loss, accuracy = problem.evaluate()
                found[f"{prefix}loss"] = loss
                found[f"{prefix}accuracy"] = float("nan") if accuracy is None else accuracy
        return found


@contextmanager
def at_weights(problem: Problem, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model at other weights and buffers, by name, inside; its own come back after."""
    model = problem.model
    with borrowed_state(model), torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in weights:
                tensor.copy_(weights[name])
        yield
