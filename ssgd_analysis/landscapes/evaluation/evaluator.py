"""Loss and accuracy of a problem at many points of a line or plane."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.landscapes.directions import Direction
from ssgd_analysis.landscapes.evaluation.plan import EvaluationPlan, chunk_size
from ssgd_analysis.landscapes.evaluation.strategies import Casting, Strategy, plain, traced
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.problem.recalibration import recalibration
from ssgd_analysis.weights import borrowed_buffers, borrowed_weights

PRECISIONS = ("fp32", "bf16")
# How far a faster strategy may be from the plain one, relative to the loss, and beside that: losses
# near zero are small differences of numbers near one, and carry their rounding.
CLOSE = {torch.float64: (1e-10, 1e-14), torch.float32: (1e-5, 1e-7)}
ROUGH = (3e-2, 1e-3)  # bfloat16 carries three digits


class Evaluator:
    """Mean loss and accuracy of a problem at many points w + Σᵢ aᵢ dᵢ.

    Each point is set from the clean weights in one move, so its values are the same however
    often and in whatever order points are evaluated. How they are evaluated is said by a plan;
    see :class:`EvaluationPlan`.

    Args:
        problem: at the weights w that are the origin; later changes of weights or buffers do not
            count.
        directions: one or more, each one tensor for every parameter.
        move_rest: called with the position before each point, to move buffers and frozen
            parameters in place (a line between two checkpoints).
        recalibrate: if given, BatchNorm's running statistics are estimated anew from these
            batches at every point.
        precision: ``fp32`` (the model's own) or ``bf16``: forward passes under autocast, the loss
            in float32.
        plan: of an earlier evaluator of the same problem: repeats its values bit for bit.
        check: positions where a faster strategy is compared with the plain one, shape
            (K, directions); by default the origin and ±1 along all directions at once.

    Raises:
        InputError: directions of other shapes, an unknown precision, or a plan that this
            problem does not allow.
    """

    plan: EvaluationPlan

    def __init__(
        self,
        problem: Problem,
        directions: list[Direction],
        *,
        move_rest: Callable[[Sequence[float]], None] | None = None,
        recalibrate: list[Batch] | None = None,
        precision: str = "fp32",
        plan: EvaluationPlan | None = None,
        check: np.ndarray | None = None,
    ) -> None:
        self.problem, self.directions = problem, directions
        self._parameters = list(problem.parameters.values())
        shapes = [parameter.shape for parameter in self._parameters]
        if not directions or any([t.shape for t in d] != shapes for d in directions):
            raise InputError("a direction should have one tensor of each parameter's shape")
        if precision not in PRECISIONS:
            raise InputError(f"precision '{precision}' should be one of {', '.join(PRECISIONS)}")
        self._origin = [parameter.detach().clone() for parameter in self._parameters]
        self._move_rest = move_rest
        self._recalibrate = None if recalibrate is None else recalibration(problem, recalibrate)
        self._casting = Casting(problem, precision)
        if check is None:
            check = np.outer([0.0, 1.0, -1.0], np.ones(len(directions)))
        self._check = check
        self._choose(plan)

    def evaluate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss and accuracy at some positions.

        Args:
            positions: coordinates along the directions, shape (M, directions). Positions that
                share all but the last are cheapest in a row.

        Returns:
            Mean losses, shape (M,), in nats per example for cross-entropy; and accuracies,
            shape (M,), NaN where the targets are no class labels.

        Raises:
            InputError: positions of another shape.
        """
        return self._evaluate(self._strategy, positions)

    def _evaluate(self, strategy: Strategy, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positions = np.asarray(positions, dtype=np.float64)
        if positions.ndim != 2 or positions.shape[1] != len(self.directions):
            raise InputError(
                f"positions of shape {positions.shape} should be (points, {len(self.directions)})"
            )
        with self._borrowed():
            found = [strategy(position) for position in self._moves(positions)]
        losses, accuracies = np.empty(len(positions)), np.full(len(positions), np.nan)
        values = _numbers([[loss for loss, _ in scores] for scores in found])
        for index, row in enumerate(values):
            losses[index] = self.problem.mean(row)
        if found and all(right is not None for _, right in found[0]):
            rights = [[right for _, right in scores if right is not None] for scores in found]
            for index, row in enumerate(_numbers(rights)):
                accuracies[index] = self.problem.label_mean(row)
        return losses, accuracies

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        """Evaluation mode, no graph; weights, and all else that moves, come back bit for bit."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(self.problem.evaluating())
            if self._move_rest is not None:
                own = {id(parameter) for parameter in self._parameters}
                others = [p for p in self.problem.model.parameters() if id(p) not in own]
                stack.enter_context(borrowed_weights(others))
                stack.enter_context(borrowed_buffers(self.problem.model))
            stack.enter_context(borrowed_weights(self._parameters))
            yield

    def _moves(self, positions: np.ndarray) -> Iterator[list[float]]:
        """Move the model to one position after the other."""
        moved = [parameter.detach() for parameter in self._parameters]
        row: list[float] | None = None
        base = self._origin
        for position in positions.tolist():
            if position[:-1] != row:
                row, base = position[:-1], self._origin
                for amount, direction in zip(row, self.directions, strict=False):
                    base = [
                        torch.add(b, d, alpha=amount) for b, d in zip(base, direction, strict=True)
                    ]
            for tensor, b, d in zip(moved, base, self.directions[-1], strict=True):
                torch.add(b, d, alpha=position[-1], out=tensor)
            if self._move_rest is not None:
                self._move_rest(position)
            if self._recalibrate is not None:
                self._recalibrate()
            yield position

    def _choose(self, plan: EvaluationPlan | None) -> None:
        """Set the plan and its strategy."""
        count = self.problem.n_samples
        if plan is None and self.problem.takes_model:
            plan = EvaluationPlan("plain", count, "traced: a loss of the model itself")
        self._strategy = plain(self.problem, self._casting)
        if plan is not None and plan.strategy == "plain":
            self.plan = plan
            return
        truth = self._evaluate(self._strategy, self._check)
        candidate = plan
        try:
            candidate = candidate or EvaluationPlan("traced", chunk_size(self.problem))
            strategy = self._traced(candidate)
            reason = self._differs(self._evaluate(strategy, self._check), truth)
        except Exception as error:  # a user's model may raise anything
            reason = first_line(error)
        if not reason and candidate is not None:
            self.plan, self._strategy = candidate, strategy
        elif plan is None:
            self.plan = EvaluationPlan("plain", count, f"traced: {reason}")
        else:
            raise InputError(
                f"the plan '{plan.strategy}:{plan.chunk}' does not fit this problem: {reason}"
            )

    def _traced(self, plan: EvaluationPlan) -> Strategy:
        rest_moves = self._move_rest is not None or self._recalibrate is not None
        return traced(self.problem, self._casting, plan.chunk, rest_moves=rest_moves)

    def _differs(
        self, found: tuple[np.ndarray, np.ndarray], truth: tuple[np.ndarray, np.ndarray]
    ) -> str:
        """How losses differ by more than rounding, in words; empty where they do not."""
        relative, absolute = CLOSE.get(self.problem.dtype, ROUGH)
        if self._casting.bf16:
            relative, absolute = ROUGH
        finite = np.isfinite(truth[0])
        if not np.array_equal(np.isfinite(found[0]), finite):
            return "other points have a finite loss"
        gaps, sizes = np.abs(found[0] - truth[0])[finite], np.abs(truth[0][finite])
        if np.any(gaps > relative * sizes + absolute):
            return f"losses differ by up to {np.max(gaps / np.maximum(sizes, 1e-300)):.1e}"
        if not np.array_equal(np.isnan(found[1]), np.isnan(truth[1])):
            return "accuracies differ"
        return ""


def _numbers(rows: list[list[Tensor]]) -> list[list[float]]:
    """Scalars on a device as numbers, in one transfer."""
    if not rows:
        return []
    flat = torch.stack([value.double() for row in rows for value in row])
    return flat.reshape(len(rows), -1).tolist()
