"""The contract of a method: one minibatch in, one update of the weights out."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.loss import Loss, scalar_loss, takes_model

FORWARD_SHARE = 1 / 3  # of a forward-backward pass: backward costs about two forwards


def setting(
    default: Any, meaning: str, *, choices: Sequence[str] = (), minimum: float | None = None
) -> Any:
    """A field of a method's settings, with what it means and what it may be."""
    metadata = {"meaning": meaning, "choices": tuple(choices), "minimum": minimum}
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


class Task:
    """What a method works on: the model, its loss and the base optimizer; counts the passes.

    Args:
        model: in training mode while steps are made.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        optimizer: any ``torch.optim.Optimizer`` over the model's parameters.
        batch_size: examples of a full minibatch: what one pass counts as.
        seed: of the run; a method derives its own streams from it.
        autocast: dtype for the forward pass, or ``None`` for the parameters' own.

    Raises:
        InputError: a loss of (model, batch).
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        seed: int = 0,
        autocast: torch.dtype | None = None,
    ) -> None:
        if takes_model(loss):
            raise InputError(
                "training needs a loss of (outputs, targets): a loss of (model, batch) can only be"
                " measured, as `sharpness` does"
            )
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.batch_size, self.seed, self.autocast = batch_size, seed, autocast
        self.step = 0  # updates made so far
        self.examples = 0.0  # examples that went forward and backward so far

    @property
    def gradients(self) -> float:
        """Forward-backward passes over a minibatch so far; a forward pass alone is a third."""
        passes = self.examples / self.batch_size
        return int(passes) if passes == int(passes) else round(passes, 6)

    @property
    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that require gradients, each once."""
        return [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's outputs, in the run's precision; not counted."""
        device = inputs.device.type
        with nullcontext() if self.autocast is None else torch.autocast(device, self.autocast):
            return self.model(inputs)

    def backward(self, inputs: Tensor, targets: Tensor, share: float = 1.0) -> float:
        """One forward-backward pass: adds ``share`` × the gradient to each ``.grad``.

        Returns:
            The minibatch's loss.
        """
        outputs = self.forward(inputs)
        loss = scalar_loss(self.loss, outputs.float() if self.autocast else outputs, targets)
        (loss * share if share != 1 else loss).backward()
        self.examples += len(inputs)
        return loss.item()


class Method(ABC):
    """How one minibatch becomes one update.

    The loop, schedules, history, resume and the counting of passes are the same code for all
    methods, so that a comparison compares methods and not loops.

    Args:
        task: what to work on.
        settings: an instance of the class's own ``Settings``.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings

    def __init__(self, task: Task, settings: MethodSettings) -> None:
        self.task = task
        self.settings: Any = settings

    @abstractmethod
    def step(self, inputs: Tensor, targets: Tensor, elapsed: float) -> float:
        """Make one update.

        Args:
            inputs: shape (B, …).
            targets: shape (B, …).
            elapsed: share of the training done, in [0, 1).

        Returns:
            The loss that the step saw, nats per example.
        """

    @classmethod
    def summary(cls) -> str:
        """What the method does, in one line."""
        return (cls.__doc__ or "").partition("\n")[0].rstrip(".")

    def state_dict(self) -> dict[str, Any]:
        """What the method must keep to be resumed, besides model and optimizer."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up a state of :meth:`state_dict`."""

    def finish(self) -> None:  # noqa: B027
        """After the last step: average or recalibrate the weights, if the method does."""


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


def is_kind(kind: Any, value: Any) -> bool:
    """Whether a value is of a kind; whole numbers are also floats, booleans are no numbers."""
    allowed = (int, float) if kind is float else (kind,)
    return isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)


def parse_settings(name: str, method: type[Method], assignments: Sequence[str]) -> MethodSettings:
    """A method's settings from ``NAME=VALUE`` texts.

    Raises:
        InputError: not of that form, an unknown name, or a value that does not fit.
    """
    for assignment in assignments:
        if "=" not in assignment:
            raise InputError(f"--set {assignment} should be NAME=VALUE")
    values = dict(assignment.split("=", 1) for assignment in assignments)
    return make_settings(name, method, values)
