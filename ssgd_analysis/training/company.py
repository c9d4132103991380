"""What a run may do with other runs; see ``training/together.py``."""

from collections.abc import Mapping
from typing import Protocol

from ssgd_analysis.methods import Task
from ssgd_analysis.problem import Problem

Scores = dict[str, tuple[float, float | None]]  # by split: mean loss and accuracy


class Company(Protocol):
    """The runs that a run goes with.

    Args:
        runs: how many there are, itself among them.
    """

    runs: int

    def join(self, task: Task) -> None:
        """The run's task is made: its passes may be made elsewhere."""

    def ready(self) -> None:
        """The run is about to make its first step."""

    def settle(self) -> None:
        """The run may draw from the global random generators from here to its next pass."""

    def evaluate(self, splits: Mapping[str, Problem]) -> Scores:
        """The losses and accuracies of all splits, at the model's present weights."""


class Alone:
    """No company: all is done by the run itself, and the generators are the run's all along."""

    runs = 1

    def join(self, task: Task) -> None:
        """Nothing."""

    def ready(self) -> None:
        """Nothing."""

    def settle(self) -> None:
        """Nothing."""

    def evaluate(self, splits: Mapping[str, Problem]) -> Scores:
        """Each split by itself."""
        return {name: problem.evaluate() for name, problem in splits.items()}


ALONE = Alone()
