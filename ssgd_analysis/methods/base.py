"""The contract of a method: one minibatch in, one update of the weights out."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.methods.task import Task
from ssgd_analysis.settings import is_kind


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field of a method's settings, with what it means and what it may be."""
    limits = {"minimum": minimum, "maximum": maximum}
    metadata = {"meaning": meaning, "choices": tuple(choices), **limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """A method's own hyper-parameters, checked when made.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            kind = type(field.default)
            if not is_kind(kind, value):
                raise InputError(f"{field.name}={value!r} is not a {kind.__name__}")
            if choices and value not in choices:
                raise InputError(f"{field.name}={value} should be one of {', '.join(choices)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name}={value} should be finite")
            minimum = field.metadata["minimum"]
            if minimum is not None and value < minimum:
                raise InputError(f"{field.name}={value} should be at least {minimum:g}")
            maximum = field.metadata["maximum"]
            if maximum is not None and value > maximum:
                raise InputError(f"{field.name}={value} should be at most {maximum:g}")


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
    return [
        {
            "name": field.name,
            "type": type(field.default).__name__,
            "default": field.default,
            "choices": list(field.metadata["choices"]),
            "meaning": field.metadata["meaning"],
        }
        for field in dataclasses.fields(method.Settings)
    ]


def make_settings(name: str, method: type[Method], values: Mapping[str, Any]) -> MethodSettings:
    """A method's settings, typed by its own defaults.

    Args:
        name: of the method, for errors.
        method: its class.
        values: by name; texts are read as the setting's type.

    Raises:
        InputError: an unknown name, or a value of the wrong type, out of range or no choice.
    """
    fields = {field.name: field for field in dataclasses.fields(method.Settings)}
    typed = {}
    for key, value in values.items():
        if not fields:
            raise InputError(f"method '{name}' has no settings, so none called '{key}'")
        if key not in fields:
            raise unknown(f"setting of {name}", key, fields)
        kind: Any = type(fields[key].default)
        try:
            typed[key] = _read(kind, value)
        except (ValueError, KeyError):
            raise InputError(f"{key}={value}: '{value}' is not a {kind.__name__}") from None
    return method.Settings(**typed)


def _read(kind: Any, value: Any) -> Any:
    """The value as ``kind``; raises ValueError or KeyError where it is something else."""
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    if not is_kind(kind, value):
        raise ValueError
    return kind(value)


def parse_settings(name: str, method: type[Method], assignments: Sequence[str]) -> MethodSettings:
    """A method's settings from ``NAME=VALUE`` texts.

    Raises:
        InputError: not of that form, an unknown name, or a value that does not fit.
    """
    return make_settings(name, method, parse_assignments("--set", assignments))


def parse_assignments(option: str, assignments: Sequence[str]) -> dict[str, str]:
    """Names and texts of ``NAME=VALUE``; the last of a name counts.

    Args:
        option: that they were given with, for errors.
        assignments: the texts.

    Raises:
        InputError: not of that form.
    """
    for assignment in assignments:
        if "=" not in assignment:
            raise InputError(f"{option} {assignment} should be NAME=VALUE")
    return dict(assignment.split("=", 1) for assignment in assignments)
