"""A problem on the context: what several metrics share is computed once, and passes are counted."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature import HessianOperator, Options
from ssgd_analysis.errors import OutOfTimeError
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import borrowed_weights, filters_of

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What was spent, in passes over all examples of the problem.

    Args:
        forwards: forward passes without gradients.
        gradients: forward and backward passes.
        products: curvature-vector products (about two gradients each).
    """

    forwards: float = 0.0
    gradients: float = 0.0
    products: float = 0.0

    def __sub__(self, other: "Cost") -> "Cost":
        """What was spent since ``other``."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(now - before for now, before in pairs))


class MetricContext:
    """A problem at fixed weights, and what metrics of it have in common.

    The weights are those at the time of making; every metric gives them back bit for bit.

    Args:
        problem: what is measured.
        seed: of all that is random; one seed gives every problem the same draws (common random
            numbers), and every metric of one problem the same perturbations.
        options: how curvature products are made.
        operator: of the Hessian of this problem, if there is one already.
        deadline: of ``time.monotonic()``; a pass or product after it raises ``OutOfTimeError``.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int = 0,
        *,
        options: Options | None = None,
        operator: HessianOperator | None = None,
        deadline: float | None = None,
    ) -> None:
        self.problem, self.seed, self.options = problem, seed, options
        self.parameters = list(problem.parameters.values())
        self.filters = filters_of(problem.model, self.parameters)
        self._operator, self.deadline = operator, deadline
        self._forwards = self._gradients = self._products = 0.0
        self._cache: dict[Hashable, Any] = {}

    @property
    def operator(self) -> HessianOperator:
        """The Hessian, made at the first use."""
        if self._operator is None:
            self._operator = HessianOperator(self.problem, options=self.options)
            self._operator.deadline = self.deadline
        return self._operator

    @property
    def cost(self) -> Cost:
        """What was spent so far."""
        made = self._operator.products if self._operator else 0
        return Cost(self._forwards, self._gradients, self._products + made)

    def pay(self, *, forwards: float = 0, gradients: float = 0, products: float = 0) -> None:
        """Count passes that are made.

        Raises:
            OutOfTimeError: after the deadline.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTimeError
        self._forwards += forwards
        self._gradients += gradients
        self._products += products

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value under a key, made at the first call."""
        if key not in self._cache:
            self._cache[key] = make()
        return cast(T, self._cache[key])

    def provide(self, key: Hashable, value: Any) -> None:
        """Give a value that :meth:`cached` then returns."""
        self._cache[key] = value

    def get(self, key: Hashable) -> Any:
        """The value under a key, or ``None``."""
        return self._cache.get(key)

    def generator(self, name: str) -> torch.Generator:
        """A named stream of this seed, on the problem's device."""
        return seeds.generator(self.seed, name, device=self.problem.device)

    @contextlib.contextmanager
    def moved(self) -> Iterator[list[Tensor]]:
        """Weights may be overwritten inside; yields clean copies, and gives them back."""
        with borrowed_weights(self.parameters) as clean, torch.no_grad():
            yield clean

    def put(self, clean: Sequence[Tensor], moves: Sequence[Tensor], scale: float = 1.0) -> None:
        """Set the weights to clean + scale · moves; inside :meth:`moved`.

        Padding rows of embeddings stay, whatever the moves: the loss has no derivative by them.
        """
        for parameter, weight, move, filters in zip(
            self.parameters, clean, moves, self.filters, strict=True
        ):
            parameter.copy_(weight).add_(move, alpha=scale)
            if filters.constant is not None:
                parameter[filters.constant] = weight[filters.constant]

    @property
    def clean_losses(self) -> list[float]:
        """Mean loss of each batch at the clean weights; not inside :meth:`moved`."""
        return self.cached("losses", self.losses)

    @property
    def clean_scores(self) -> tuple[list[float], list[float] | None]:
        """Mean loss and accuracy of each batch at the clean weights; not inside :meth:`moved`."""
        found = self.cached("scores", self.scores)
        self.provide("losses", found[0])
        return found

    @property
    def clean_gradient(self) -> list[Tensor]:
        """The gradient of the mean loss at the clean weights; not inside :meth:`moved`."""
        return self.cached("gradient", self.gradient)

    @property
    def divisible(self) -> bool:
        """Whether every batch's loss is the mean of its halves'."""
        return self.cached("divisible", self._divisible)

    def _divisible(self) -> bool:
        self.pay(forwards=1, gradients=2)  # all batches, and again in halves
        return self.problem.divisible

    def losses(self) -> list[float]:
        """Mean loss of each batch at the present weights."""
        self.pay(forwards=1)
        return self.problem.batch_losses()

    def scores(self) -> tuple[list[float], list[float] | None]:
        """Mean loss and accuracy (or ``None``) of each batch at the present weights."""
        self.pay(forwards=1)
        return self.problem.batch_scores()

    def gradient(self) -> list[Tensor]:
        """The gradient of the mean loss at the present weights, by parameter."""
        self.pay(gradients=1)
        return self.problem.gradient()

    def losses_and_gradient(self) -> tuple[list[float], list[Tensor]]:
        """Both of the above at the present weights, at the cost of the gradient."""
        self.pay(gradients=1)
        return self.problem.losses_and_gradient()
