"""One of the runs that are made together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from greenlet import greenlet
from torch import Tensor
from torch.optim import Optimizer

from ssgd_analysis import random_state
from ssgd_analysis.methods import Task
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs.config import TrainConfig
from ssgd_analysis.training.company import ALONE, Scores
from ssgd_analysis.training.loop import train
from ssgd_analysis.training.merged import likeness

Job = tuple[TrainConfig, Path]


class Pass(NamedTuple):
    """A forward-backward pass that a run waits for."""

    inputs: Tensor
    targets: Tensor
    share: float


class Update(NamedTuple):
    """A step of the base optimizer that a run waits for; see ``likeness``."""

    likeness: tuple[Any, ...]
    optimizer: Optimizer


class Member:
    """One run, on a stack of its own; it pauses where it wants a pass.

    The global random generators belong to it from its start to its first pass, and from where it
    settles to its next wait; nothing draws from them elsewhere, so that they need not be changed
    at every step.

    Args:
        job: settings and folder.
        resume: as in :func:`train`.
    """

    def __init__(self, job: Job, resume: bool, runs: int) -> None:
        self.job, self.resume, self.runs = job, resume, runs
        self.result: dict[str, Any] | Exception = RuntimeError("the run was not started")
        self.task: Task | None = None
        self.wanted: Pass | Update | None = None  # what it waits for
        self.settling = False  # it waits for its random generators
        self.settled = False  # it has them
        self.random: dict[str, Any] | None = None
        self.total = self.done = 0
        self.note = ""
        self.strand = greenlet(self._train)

    def _train(self) -> None:
        config, folder = self.job
        try:
            self.result = train(config, folder, resume=self.resume, progress=self, company=self)
        except Exception as error:  # one run's end is not the others'
            self.result = error

    # What the run is given: a company and a progress

    def join(self, task: Task) -> None:
        """Make the task's passes and updates here."""
        self.task, task.run_pass, task.run_update = task, self._pass, self._update

    def ready(self) -> None:
        """Wait for the others before the first step: models are stacked now."""
        self.strand.parent.switch()

    def settle(self) -> None:
        """From here to the next wait the global random generators are the run's own."""
        if not self.settled:
            self.settling = True
            self.strand.parent.switch()

    def evaluate(self, splits: Mapping[str, Problem]) -> Scores:
        """Each split by itself, with the run's own random generators."""
        self.settle()
        return ALONE.evaluate(splits)

    def _pass(self, inputs: Tensor, targets: Tensor, share: float) -> float:
        self.wanted = Pass(inputs, targets, share)
        loss: float = self.strand.parent.switch()
        return loss

    def _update(self) -> None:
        assert self.task is not None
        optimizer = self.task.optimizer
        like = likeness(optimizer)
        if like is not None:
            self.wanted = Update(like, optimizer)
            self.strand.parent.switch()
            return
        if type(optimizer).__module__.partition(".")[0] not in ("torch", "ssgd_analysis"):
            self.settle()  # a stranger's optimizer may draw
        optimizer.step()

    def start(self, label: str, total: int | None = None) -> None:
        """Keep the number of steps."""
        self.total = total or 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Keep what is to be told."""
        self.done, self.note = self.done + steps, note

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A run has none."""

    def warn(self, message: str) -> None:
        """Keep the warning as the note."""
        self.note = message

    # What the hub does with it

    def go(self) -> None:
        """Go on, with the run's own random generators, until it waits or is at its end."""
        if self.random is not None:
            random_state.restore(self.random)
        self.settling, self.settled = False, True
        self.strand.switch()
        self.settled = False
        self.random = random_state.capture()

    def answer(self, loss: float | Exception | None) -> None:
        """Go on with the loss of the pass that was wanted, after an update, or its failure."""
        self.wanted = None
        if isinstance(loss, Exception):
            self.strand.throw(loss)
        else:
            self.strand.switch(loss)

    def alone(self) -> float | Exception:
        """Make the pass that is wanted by itself, with the run's own random generators."""
        assert self.task is not None
        assert self.random is not None
        random_state.restore(self.random)
        try:
            return self.task.pass_alone(*self.wanted_pass)
        except Exception as error:
            return error
        finally:
            self.random = random_state.capture()

    @property
    def wanted_pass(self) -> Pass:
        """The pass that it waits for."""
        assert isinstance(self.wanted, Pass)
        return self.wanted

    def stop(self) -> None:
        """Unwind a run that is not at its end; it stays resumable."""
        if not self.strand.dead:
            self.strand.throw()
