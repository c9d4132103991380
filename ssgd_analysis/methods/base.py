"""The contract of a method: one minibatch in, one update of the weights out."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.task import Task
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
        task: what to work on.
        settings: an instance of the class's own ``Settings``.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    OPTIMIZER: ClassVar[str] = ""  # the one base optimizer that belongs to it; empty: any

    def __init__(self, task: Task, settings: MethodSettings) -> None:
        self.task = task
        self.settings: Any = settings

    @classmethod
    def passes(cls, settings: Any) -> float:
        """Forward-backward passes over a minibatch that a step costs; the mean, where it varies.

        What budgets are worked out from before a run; ``Task.gradients`` counts what was spent.
        """
        return 1

    @classmethod
    def minibatches(cls, settings: Any) -> int:
        """Minibatches of fresh examples that a step is given, as one of so many times the size."""
        return 1

    @classmethod
    def smallest_pass(cls, settings: Any, batch_size: int) -> int:
        """The fewest examples that one of a step's passes is given, with minibatches of this size.

        Which ranks and micro-batches then part among them.
        """
        return batch_size

    @abstractmethod
    def gradient(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """Leave in every ``.grad`` (``None`` before) what the base optimizer shall step with.

        The weights afterwards are the exact bits from before.

        Args:
            inputs: shape (B, …).
            targets: shape (B, …).
            elapsed: share of the training done, in [0, 1).

        Returns:
            The loss that the step saw, nats per example.
        """

    def step(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """Make one update; arguments and result as of :meth:`gradient`."""
        for group in self.task.optimizer.param_groups:  # as zero_grad, without its records
            for parameter in group["params"]:
                parameter.grad = None
        loss = self.gradient(inputs, targets, elapsed)
        self.task.update()
        return loss

    @classmethod
    def summary(cls) -> str:
        """What the method does, in one line."""
        return (cls.__doc__ or "").partition("\n")[0].rstrip(".")

    def state_dict(self) -> dict[str, Any]:
        """What the method must keep to be resumed, besides model and optimizer."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up a state of :meth:`state_dict`."""

    def finish(self, batches: Sequence[Batch]) -> None:  # noqa: B027
        """Put the weights into the model that training gives out, where they are not the iterate.

        Called once after the last step; and on borrowed weights after every epoch, so that the
        history tells of the same weights. So it must not change the method's own state.

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
    known = declarations(method.Settings)
    if values and not known:
        raise InputError(f"method '{name}' has no settings, so none called '{next(iter(values))}'")
    return method.Settings(**make_typed(name, known, values))


def parse_settings(name: str, method: type[Method], assignments: Sequence[str]) -> MethodSettings:
    """A method's settings from ``NAME=VALUE`` texts.

    Raises:
        InputError: not of that form, an unknown name, or a value that does not fit.
    """
    return make_settings(name, method, read_assignments("--set", assignments))
