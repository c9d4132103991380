"""What a metric is: a function of a problem on the context that anyone can call on a model."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, Generic, ParamSpec

from torch import nn

from ssgd_analysis.batch import Batch, Count
from ssgd_analysis.errors import InputError, WorkError, unknown
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.problem import Problem
from ssgd_analysis.problem.loss import Loss

P = ParamSpec("P")


class Metric(Generic[P]):
    """Called as ``(model, loss, batches, *, seed=0, **settings) -> Measurement``.

    ``metric.on(context, **settings)`` shares work with the other metrics of one problem.

    Args:
        function: ``(context, *, …) -> Measurement``, every setting with a default.
    """

    def __init__(self, function: Callable[Concatenate[MetricContext, P], Measurement]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        _, *settings = inspect.signature(function).parameters.values()
        shared = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for name in ("model", "loss", "batches")
        ]
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in (("count", None), ("seed", 0))
        ]
        self.__signature__ = inspect.Signature([*shared, *common, *settings])
        self.defaults = {setting.name: setting.default for setting in settings}

    def __call__(
        self,
        model: nn.Module | Problem,
        loss: Loss | None = None,
        batches: Iterable[Batch] = (),
        *,
        count: Count | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Measurement:
        """Measure a model.

        Args:
            model: any ``nn.Module``; or a :class:`ssgd_analysis.Problem`, which has the rest.
            loss: ``(outputs, targets) -> scalar``, the mean over the batch, or
                ``(model, batch) -> scalar``.
            batches: read once.
            count: the examples of a batch; see :class:`ssgd_analysis.problem.Problem`.
            seed: of all that is random.
            settings: the metric's own.
        """
        on: Callable[..., Measurement] = self.on
        if not isinstance(model, Problem):
            if loss is None:
                raise InputError("a model needs a loss and batches, or give a Problem")
            model = Problem(model, loss, batches, count=count)
        return on(MetricContext(model, seed), **settings)

    def on(self, context: MetricContext, *args: P.args, **settings: P.kwargs) -> Measurement:
        """Measure a problem that is on the context; the cost is what this metric added.

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


def metric(function: Callable[Concatenate[MetricContext, P], Measurement]) -> Metric[P]:
    """Make a metric of a function of a context; see :class:`Metric`."""
    return Metric(function)
