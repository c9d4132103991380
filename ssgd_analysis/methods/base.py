"""The contract of a method: one minibatch in, one update of the weights out."""

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.loss_scale import SMALLEST, Overflow
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.methods.when import When
from ssgd_analysis.settings import Settings, declarations, make_typed, read_assignments
from ssgd_analysis.settings import setting as setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSettings(Settings):
    """A method's own hyper-parameters, checked when they are made.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.
    """

    OPTIONS: ClassVar[bool] = False  # errors write name=value, as --set does


class Method(ABC):
    """How one minibatch becomes one update.

    The loop, schedules, history, resume and the counting of passes are the same code for all
    methods, so that a comparison compares methods and not loops.

    Args:
        passes: makes the passes; it holds model, loss and base optimizer.
        settings: an instance of the class's own ``Settings``.

    Raises:
        InputError: it needs targets, and the loss is one of (model, batch).
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    OPTIMIZER: ClassVar[str] = ""  # the one base optimizer that belongs to it; empty: any
    needs_targets: ClassVar[bool] = False  # it can make nothing of a loss of (model, batch)

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        if self.needs_targets and passes.takes_model:
            name = self.summary().partition(":")[0]
            raise InputError(
                f"{name} needs the targets of each example, which a loss of (model, batch) does not"
                " show: give a --loss of (outputs, targets), or another --method"
            )
        self.passes = passes
        self.settings: Any = settings

    @classmethod
    def passes_per_step(cls, settings: Any) -> float:
        """Forward-backward passes over a minibatch that a step costs; the mean, where it varies.

        Budgets are worked out from it before a run; ``Passes.gradients`` counts what was spent.
        """
        return 1

    @classmethod
    def minibatches(cls, settings: Any) -> int:
        """Minibatches of fresh examples that a step takes; it gets them as one large minibatch."""
        return 1

    @classmethod
    def smallest_pass(cls, settings: Any, batch_size: int) -> int:
        """The fewest examples that one of a step's passes gets, with minibatches of this size.

        Processes and micro-batches divide these examples further.
        """
        return batch_size

    @classmethod
    def freezes_batchnorm(cls, settings: Any) -> bool:
        """Whether all passes use BatchNorm's running statistics and never change them.

        Otherwise a pass normalises by its own examples, of which it needs at least two.
        """
        return getattr(settings, "bn_stats", "") == "frozen"

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """What the method lowers in training besides the loss: metrics of it are no evidence.

        Args:
            settings: of the method.
            lr_schedule: of the learning rate, which the noise may follow.
        """
        return ()

    @abstractmethod
    def gradient(self, batch: Batch, when: When) -> float:
        """Leave in every ``.grad`` (``None`` before) the gradient for the base optimizer's step.

        The weights afterwards have the exact bits from before.

        Args:
            batch: the minibatch: ``(inputs, targets)``, or what a loss of (model, batch) takes.
            when: moment of the training.

        Returns:
            The loss that the step reports, nats per example.
        """

    def step(self, batch: Batch, when: When) -> float:
        """Make one update; see :meth:`gradient` for arguments and result."""
        for group in self.passes.optimizer.param_groups:  # zero_grad, without its profiling
            for parameter in group["params"]:
                parameter.grad = None
        loss = self.gradient(batch, when)
        self.passes.update()
        return loss

    def attempt(self, batch: Batch, when: When) -> float:
        """Make one update, or skip it where a scaled float16 gradient is not finite.

        A skipped step halves the loss scale and leaves weights, buffers, base optimizer and the
        method's own state as they were.

        Args:
            batch: the minibatch: ``(inputs, targets)``, or what a loss of (model, batch) takes.
            when: moment of the training.

        Returns:
            The loss that the step reports; infinite where no scale makes the gradients finite.
        """
        passes = self.passes
        if passes.scale is None:
            return self.step(batch, when)
        state = copy.deepcopy(self.state_dict())
        buffers = [(buffer, buffer.clone()) for buffer in passes.model.buffers()]
        try:
            return self.step(batch, when)
        except Overflow as overflow:
            self.load_state_dict(state)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            passes.optimizer.zero_grad()
            passes.scale.shrink()
            return overflow.loss if passes.scale.value >= SMALLEST else math.inf

    def learning_rate(self, rate: float, fraction_done: float) -> float:
        """The learning rate of the next step; a method may replace that of the schedule.

        Args:
            rate: what the schedule says.
            fraction_done: share of the training done, in [0, 1).
        """
        return rate

    @classmethod
    def summary(cls) -> str:
        """What the method does, in one line."""
        return (cls.__doc__ or "").partition("\n")[0].rstrip(".")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs of the method, besides model and optimizer."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from a state of :meth:`state_dict`."""

    def finish(self, batches: Sequence[Batch]) -> None:  # noqa: B027
        """Put the result of the training into the model, where it is not the iterate itself.

        It is called once after the last step, and on borrowed weights after every epoch, so that
        the history describes the same weights. So it must not change the method's own state.

        Args:
            batches: of the training examples, in order, to recalibrate BatchNorm with.
        """


def describe_settings(method: type[Method]) -> list[dict[str, Any]]:
    """Name, type, default, choices and meaning of each of a method's settings."""
    return [each.record() for each in declarations(method.Settings)]


def make_settings(name: str, method: type[Method], values: Mapping[str, Any]) -> MethodSettings:
    """A method's settings, typed by its own defaults.

    Args:
        name: of the method, for errors.
        method: its class.
        values: by name; texts are read as the setting's type.

    Raises:
        InputError: an unknown name, or a value of the wrong type, out of range or no choice.
    """
    declared = declarations(method.Settings)
    if values and not declared:
        raise InputError(f"method '{name}' has no settings, so none called '{next(iter(values))}'")
    return method.Settings(**make_typed(name, declared, values))


def parse_settings(name: str, method: type[Method], assignments: Sequence[str]) -> MethodSettings:
    """A method's settings from ``NAME=VALUE`` texts.

    Raises:
        InputError: not of that form, an unknown name, or a value that does not fit.
    """
    return make_settings(name, method, read_assignments("--set", assignments))
