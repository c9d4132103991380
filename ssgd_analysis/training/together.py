"""Many runs at once: each an ordinary run, their passes made as one."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch.nn.modules.conv import _ConvNd

from ssgd_analysis import random_state
from ssgd_analysis.methods import Task
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.training.member import Job, Member, Update
from ssgd_analysis.training.merged import Merged
from ssgd_analysis.training.stacked import NotStackableError, Stack

# On a CPU a stacked pass gains by fewer, larger operations until its activations leave the cache
# (docs/benchmarks.md): at most so many examples in one.
CPU_EXAMPLES = 1024

# Sets of runs whose optimizers are kept merged: runs of one method change theirs rarely.
MOST_MERGED = 8

# Settings that shape a model or its loss: runs that differ in one are never stacked.
SHAPING = ("model", "loss", "label_smoothing", "device", "precision")


def train_together(
    jobs: Sequence[Job], *, resume: bool = False, progress: Progress = SILENT
) -> list[dict[str, Any] | Exception]:
    """Train many models in one process, the passes of equal networks as one.

    Every run is what :func:`train` makes of it: its own settings, seed and run folder, resumable
    at any time, stacked or alone. Weights start at the same bits as alone; a stacked pass sums
    in another order, so later numbers agree up to rounding, which training magnifies. A run
    that ends, stops or diverges drops out; the others go on with their own numbers.

    Where a network cannot be stacked (random layers, hooks, a loss that looks at values, or
    first numbers that differ from those of a pass alone) its passes are made one by one, after
    one warning that says why.

    Args:
        jobs: settings and folder of each run.
        resume: as in :func:`train`.
        progress: told of the steps of all runs together.

    Returns:
        For each job the result of :func:`train`, or the exception that ended this run.
    """
    before = random_state.capture()
    try:
        return _Together(jobs, resume, progress).run()
    finally:
        random_state.restore(before)


class _Together:
    """All runs in lockstep: when each wants a pass, the passes are made."""

    def __init__(self, jobs: Sequence[Job], resume: bool, progress: Progress) -> None:
        self.members = [Member(job, resume, len(jobs)) for job in jobs]
        self.progress = progress
        self.stacks: dict[int, tuple[Stack, int]] = {}  # member's number → its stack and row
        self.merged: dict[tuple[int, ...], Merged] = {}  # by the members' numbers
        self.refused: set[Any] = set()
        self.warned: set[str] = set()

    def run(self) -> list[dict[str, Any] | Exception]:
        try:
            for member in self.members:
                member.go()  # until it is ready
            self._stack()
            for member in self.members:
                if not member.strand.dead:
                    member.go()  # to its first pass
            total = sum(member.total for member in self.members)
            self.progress.start(f"training {len(self.members)} runs", total)
            while waiting := [n for n, m in enumerate(self.members) if m.wanted is not None]:
                self._serve(waiting)
                self._tell()
        finally:
            for member in self.members:
                member.stop()
        return [member.result for member in self.members]

    def _stack(self) -> None:
        """Stack the models of equal structure."""
        groups: dict[Any, list[int]] = {}
        for number, member in enumerate(self.members):
            if member.strand.dead or member.task is None:
                continue
            if why := _single(member.task):
                self._warn(why)
            else:
                groups.setdefault(_structure(member), []).append(number)
        for structure, numbers in groups.items():
            if len(numbers) > 1:
                stack = Stack([self._task(number) for number in numbers], structure)
                self.stacks |= {number: (stack, row) for row, number in enumerate(numbers)}

    def _task(self, number: int) -> Task:
        task = self.members[number].task
        assert task is not None
        return task

    def _serve(self, waiting: list[int]) -> None:
        """Make every pass and update that is wanted, then let each run go on to its next."""
        groups: dict[Any, list[int]] = {}
        for number in waiting:
            groups.setdefault(self._likeness(number), []).append(number)
        for key, numbers in groups.items():
            update = isinstance(self.members[numbers[0]].wanted, Update)
            answers = self._updates(numbers) if update else self._passes(key, numbers)
            for number, loss in zip(numbers, answers, strict=True):
                member = self.members[number]
                member.answer(loss)
                if member.settling:
                    member.go()

    def _likeness(self, number: int) -> Any:
        """What passes or updates must share to be made as one; a number: it is made alone."""
        wanted = self.members[number].wanted
        assert wanted is not None
        if isinstance(wanted, Update):
            return wanted.likeness
        if number not in self.stacks:
            return number
        stack, row = self.stacks[number]
        inputs, targets, _ = wanted
        if stack.changed(row):
            return number
        data = (inputs.shape, inputs.dtype, targets.shape, targets.dtype)
        return (id(stack), stack.modes(row), *data)

    def _passes(self, key: Any, numbers: list[int]) -> Iterable[float | Exception]:
        """The losses of passes that are alike, or their failures."""
        inputs = self.members[numbers[0]].wanted_pass[0]
        most = CPU_EXAMPLES // len(inputs) if inputs.device.type == "cpu" else len(numbers)
        if most < 2:
            return (self.members[number].alone() for number in numbers)
        starts = range(0, len(numbers), most)
        return [loss for n in starts for loss in self._stacked(key, numbers[n : n + most])]

    def _stacked(self, key: Any, numbers: list[int]) -> Iterable[float | Exception]:
        """The losses of passes made as one, where that can be."""
        if len(numbers) > 1 and key not in self.refused:
            stack = self.stacks[numbers[0]][0]
            rows = [self.stacks[number][1] for number in numbers]
            inputs, targets, shares = zip(
                *(self.members[number].wanted_pass for number in numbers), strict=True
            )
            try:
                return stack.run(rows, list(inputs), list(targets), list(shares))
            except NotStackableError as reason:
                self.refused.add(key)
                self._warn(str(reason))
            except Exception as error:
                return [error] * len(numbers)
        return [self.members[number].alone() for number in numbers]

    def _updates(self, numbers: list[int]) -> Sequence[Exception | None]:
        """Steps of base optimizers that are alike, or their failure."""
        merged = self.merged.get(tuple(numbers))
        if merged is None or not merged.holds:
            if len(self.merged) >= MOST_MERGED:
                self.merged.clear()
            merged = Merged([self._task(number).optimizer for number in numbers])
            self.merged[tuple(numbers)] = merged
        try:
            merged.step()
        except Exception as error:
            return [error] * len(numbers)
        return [None] * len(numbers)

    def _warn(self, why: str) -> None:
        """Say once that passes are not stacked."""
        if why not in self.warned:
            self.warned.add(why)
            self.progress.warn(f"passes are made one by one, not stacked: {why}")

    def _tell(self) -> None:
        """Tell the progress of the steps since the last time."""
        done = sum(member.done for member in self.members)
        for member in self.members:
            member.done = 0
        if done:
            self.progress.advance(done, self.members[0].note)


def _single(task: Task) -> str:
    """Why the task's passes cannot be stacked; empty: they may be."""
    reasons = {
        "a compiled model": task.compiled is not None,
        "micro-batches": task.accumulate != 1,
        "several processes": task.world != 1,
        "a loss scale": task.scale is not None,
        "channels-last inputs": task.channels_last,
        "convolutions, which a CPU makes no faster in groups": any(
            isinstance(module, _ConvNd) for module in task.model.modules()
        )
        and next(task.model.parameters()).device.type == "cpu",
    }
    return ", ".join(reason for reason, given in reasons.items() if given)


def _structure(member: Member) -> Any:
    """What models must share to be stacked."""
    config, task = member.job[0], member.task
    assert task is not None
    model = task.model
    tensors = [
        (name, tensor.shape, tensor.dtype, tensor.requires_grad)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    ]
    shaping = tuple(getattr(config, name) for name in SHAPING)
    return (*shaping, repr(model), tuple(tensors))
