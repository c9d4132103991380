"""What a metric is: a function of a problem that says what it is, what it needs, what moves it."""

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, overload

from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.problem import Problem

P = ParamSpec("P")
ABSOLUTE = (0.003, 0.01, 0.02, 0.05)  # standard deviations of noise in units of the weights
RELATIVE = (0.05, 0.1, 0.2, 0.4)  # radii relative to the weights, as in arXiv 2302.07011
BALL, BALL_LINF = (0.01, 0.02, 0.05, 0.1, 0.2), (0.0005, 0.001, 0.002, 0.004)  # L2, largest entry


@dataclass(frozen=True)
class Perturbation:
    """How a metric perturbs the weights: a method that trained on the same is favoured by it.

    Args:
        kind: ``noise``, ``ascent``, ``adaptive ascent`` (relative to each weight), ``entropy`` or
            ``gradient``.
        radius: the setting that is its size.
        law: of noise, where no setting chooses it.
        scale: of noise, where no setting chooses it.
    """

    kind: str
    radius: str = ""
    law: str = ""
    scale: str = ""


@dataclass(eq=False, repr=False)
class Facts:
    """What a metric says of itself.

    Args:
        summary: one line.
        invariant_to: changes that leave the value at default settings alone; names of
            :data:`ssgd_analysis.symmetries.transformations.TRANSFORMATIONS`.
        radius: the setting that is a radius or a noise scale, if there is one: a value is a
            point of the curve over it.
        radii: the default grid of that curve.
        linf_radii: the grid for ``norm="linf"``, where that is a setting.
        flatter: which values mean a flatter minimum: ``"lower"``, ``"higher"``; ``None``: neither.
        note: what tables say beside the name.
        label: the name as sentences write it; default: the name.
        needs: what a problem must have, in words.
        compared: whether comparisons measure it unless other metrics are asked for.
        perturbs: what a method may have trained on.
    """

    summary: str
    invariant_to: tuple[str, ...] = ()
    radius: str = ""
    radii: tuple[float, ...] = ()
    linf_radii: tuple[float, ...] = ()
    flatter: str | None = "lower"
    note: str = ""
    label: str = ""
    needs: tuple[str, ...] = ()
    compared: bool = False
    perturbs: Perturbation | None = None

    def invariances(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """``invariant_to`` at other settings than the defaults."""
        lost: set[str] = set()
        scale = settings.get("scale")
        if scale in ("filter", "layer"):
            lost.add("neuron")
        elif scale == "none":
            lost |= {"layer", "neuron", "batchnorm", "folding"}
        if settings.get("of") == "loss" or settings.get("normalise") == "none":
            lost.add("logit")
        return tuple(name for name in self.invariant_to if name not in lost)

    def invariant(self, settings: Mapping[str, Any]) -> bool:
        """Whether no rescaling of the weights moves it: only such a metric can decide."""
        return {"layer", "neuron", "batchnorm"} <= set(self.invariances(settings))

    def grid(self, settings: Mapping[str, Any]) -> tuple[float, ...]:
        """The default radii of a curve at these settings."""
        if settings.get("norm") == "linf":
            return self.linf_radii
        return ABSOLUTE if settings.get("scale") == "none" else self.radii


class Metric(Facts, Generic[P]):
    """A flatness metric, called as ``metric(problem, *, seed=0, **settings) -> Measurement``.

    Args:
        function: ``(context, *, …) -> Measurement``, every setting with a default.
        facts: those of :class:`Facts`, which are attributes.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, y = torch.eye(2), torch.zeros(2, 1)
        >>> problem = Problem(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), [(x, y)])
        >>> round(flatness.lambda_max(problem).value, 4)  # the loss is (w₁² + w₂²) / 2
        1.0
    """

    def __init__(
        self, function: Callable[Concatenate[MetricContext, P], Measurement], **facts: Any
    ) -> None:
        super().__init__(**facts)
        functools.update_wrapper(self, function)
        self._function, self.name = function, function.__name__
        self.label = self.label or self.name
        self.__doc__ = _public_docstring(function.__doc__ or "")
        _, *settings = inspect.signature(function).parameters.values()
        problem = inspect.Parameter("problem", inspect.Parameter.POSITIONAL_ONLY)
        seed = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=0)
        self.__signature__ = inspect.Signature([problem, seed, *settings])
        self.defaults = {setting.name: setting.default for setting in settings}

    @overload
    def __call__(self, problem: Problem, /, *args: P.args, **settings: P.kwargs) -> Measurement: ...

    @overload
    def __call__(self, problem: Problem, /, *, seed: int, **settings: Any) -> Measurement: ...

    def __call__(self, problem: Problem, /, *args: Any, **settings: Any) -> Measurement:
        """Measure a problem at the present weights.

        Args:
            problem: what is measured.
            args: none: settings are given by name.
            settings: the metric's own, and ``seed`` (0) of all that is random; one seed gives every
                problem the same random numbers.

        Raises:
            InputError: the argument is not a Problem, or lacks what the metric needs.
            WorkError: the value is not finite.
        """
        if not isinstance(problem, Problem):
            raise InputError(
                f"{self.name} measures a Problem: make one with Problem(model, loss, batches)"
            )
        on: Callable[..., Measurement] = self.on
        return on(MetricContext(problem, settings.pop("seed", 0)), *args, **settings)

    def on(self, context: MetricContext, *args: P.args, **settings: P.kwargs) -> Measurement:
        """Measure by a context, which metrics share; the cost is what this metric added.

        Raises:
            WorkError: the value is not finite.
        """
        before = context.cost
        found = self._function(context, *args, **settings)
        if not math.isfinite(found.value):
            raise WorkError(f"the value is {found.value} at these weights")
        return dataclasses.replace(found, cost=context.cost - before)

    def settings(self, text: str) -> dict[str, Any]:
        """Settings out of text as ``sigma=0.1,law=binary``, each of its default's type.

        Raises:
            InputError: a setting that is not there, or a value of another type.
        """
        found: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, equal, value = part.partition("=")
            if name not in self.defaults:
                raise unknown("setting", name, self.defaults)
            kind = type(self.defaults[name])
            try:
                found[name] = kind(value)
            except ValueError:
                equal = ""
            if not equal:
                raise InputError(f"setting {name}: {value!r} should be of type {kind.__name__}")
        return found

    def __repr__(self) -> str:
        return f"<metric {self.name}{self.__signature__}: {self.summary}>"


def metric(
    summary: str, **facts: Any
) -> Callable[[Callable[Concatenate[MetricContext, P], Measurement]], Metric[P]]:
    """Make a metric of a function of a context.

    Args:
        summary: one line.
        facts: the others of :class:`Facts`.
    """

    def decorated(function: Callable[Concatenate[MetricContext, P], Measurement]) -> Metric[P]:
        return Metric(function, summary=summary, **facts)

    return decorated


def _public_docstring(text: str) -> str:
    """The docstring with the arguments that callers give: a problem and a seed, for the context."""
    return re.sub(
        r"( +)context: the problem((?:.|\n\1 +)*)",
        r"\1problem: what is measured\2\n\1seed: of all that is random.",
        text,
    )
