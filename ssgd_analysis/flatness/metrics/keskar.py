"""The ε-sharpness of Keskar et al.: the largest loss in a box, by bounded L-BFGS."""

import functools
import math

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights import flattened

CHUNK = 1 << 14  # parameters whose entries of all columns are in float64 at once


@metric(
    "largest loss found in a box of size epsilon, per cent of 1 + loss, a lower bound",
    invariant_to=("permutation",),
    radius="epsilon",
    radii=(0.0001, 0.0002, 0.0005, 0.001, 0.002),
    note="lower bound",
)
def keskar(
    context: MetricContext, *, epsilon: float = 1e-3, subspace: int = 0, iterations: int = 10
) -> Measurement:
    """100 · (max_z L(w + Az) − L(w)) / (1 + L(w)) over the box |z_i| ≤ ε (|(A⁺w)_i| + 1).

    A is the identity, or has ``subspace`` random columns of standard normal entries. The maximum
    is sought by L-BFGS-B from z = 0, and the largest loss met counts: a lower bound, which never
    falls with more iterations. Not invariant to any rescaling of the weights.

    Two things that the paper leaves open matter. The search runs in units of the box's half
    widths and of the mean slope along them: its first step then reaches the walls of the box, and
    no tolerance ends it, whatever the loss's scale. In raw units ten iterations go less far the
    smaller the gradient is, and a better fit looks flatter than it is (on digits at a loss of
    2e-4, a hundredth of the rise was found). And where the gradient is exactly zero the search
    starts at a random point of the box.

    Args:
        context: the problem.
        epsilon: size of the box.
        subspace: dimension of the random subspace, 100 in the paper (takes the memory of that
            many copies of the weights); 0: the full space.
        iterations: of L-BFGS-B, at most; each takes a gradient, rarely more.

    Returns:
        Per cent of 1 + L; the error is that of sampling the examples, at the perturbation found.

    Raises:
        InputError: a negative or infinite epsilon, a subspace larger than the space, no
            iterations, or a loss of −1 or less.
        WorkError: a loss or gradient in the box is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.keskar(problem, epsilon=0.01).value, 3)
        0.1

    Reference:
        Keskar et al. 2017 (arXiv 1609.04836), metric 2.1 and section 2.2.2.
    """
    parameters = context.problem.n_parameters
    if not 0 <= epsilon < math.inf or iterations < 1:
        raise InputError(f"epsilon {epsilon} should be ≥ 0 and finite, iterations {iterations} ≥ 1")
    if not 0 <= subspace <= parameters:
        raise InputError(
            f"subspace {subspace} should be at most the {parameters} parameters,"
            " or 0 for the full space"
        )
    before = after = context.clean_losses
    low = context.problem.mean(before)
    if low <= -1:
        raise InputError(
            f"the metric divides by 1 + loss, and the loss is {low:.6g}: use worst_case"
        )
    if epsilon > 0:
        after = _Box(context, epsilon, subspace).worst(iterations)
    relative = (context.problem.mean(after) - low) / (1 + low)
    # the ratio's derivative by each batch's losses, so that their mean is the ratio itself
    values = [
        100 * (b - a - relative * (a - low)) / (1 + low) for a, b in zip(before, after, strict=True)
    ]
    settings = {
        "epsilon": epsilon,
        "subspace": subspace,
        "iterations": iterations,
        "seed": context.seed,
    }
    return of_batches(context, values, settings)


class _Box:
    """The loss over the box, its half widths the units; A's columns are rows here: Aᵀ, (k, P)."""

    def __init__(self, context: MetricContext, epsilon: float, subspace: int) -> None:
        self.context = context
        self.columns = _columns(context, subspace) if subspace else None
        center = flattened(context.parameters).detach()
        if self.columns is not None:
            center = torch.linalg.solve(self._dot(self.columns), self._dot(center[None]))[:, 0]
        self.half = epsilon * (center.double().abs() + 1)

    def worst(self, iterations: int) -> list[float]:
        """Each batch's loss at the worst point that L-BFGS-B sees."""
        context = self.context
        best = (context.problem.mean(context.clean_losses), context.clean_losses)
        grads = self._grads(context.clean_gradient)
        scale = float(grads.abs().mean())
        start = torch.zeros_like(self.half)
        if scale == 0:
            generator = context.generator("keskar")
            start = 2 * torch.rand(start.shape, generator=generator, device=start.device) - 1
            scale = 1.0

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best
            context.put(clean, self._moves(torch.from_numpy(point).to(self.half)))
            losses, gradient = context.losses_and_gradient()
            value = context.problem.mean(losses)
            grads = self._grads(gradient)
            if not (math.isfinite(value) and bool(grads.isfinite().all())):
                raise WorkError("the loss or its gradient in the box is not finite")
            if value > best[0]:
                best = (value, losses)
            return -value / scale, -grads.cpu().numpy() / scale

        with context.moved() as clean:
            minimize(
                objective,
                start.double().cpu().numpy(),
                jac=True,
                method="L-BFGS-B",
                bounds=[(-1, 1)] * len(start),
                options={"maxiter": iterations, "ftol": 0, "gtol": 0},
            )
        return best[1]

    def _moves(self, point: Tensor) -> list[Tensor]:
        move = (point * self.half).to(self.context.problem.dtype)
        if self.columns is not None:
            move = move @ self.columns
        return self.context.problem.split(move)

    def _grads(self, gradient: list[Tensor]) -> Tensor:
        grads = flattened(gradient)
        if self.columns is not None:
            grads = self._dot(grads[None])[:, 0]
        return grads.double() * self.half

    def _dot(self, rows: Tensor) -> Tensor:
        """Aᵀ times the transpose of rows (n, P), in float64: shape (k, n)."""
        assert self.columns is not None
        parts = zip(self.columns.split(CHUNK, dim=1), rows.split(CHUNK, dim=1), strict=True)
        products = (columns.double() @ part.double().T for columns, part in parts)
        return functools.reduce(Tensor.add_, products)


def _columns(context: MetricContext, count: int) -> Tensor:
    """Standard normal entries, shape (count, P); the same in every precision."""
    generator, size = context.generator("keskar subspace"), context.problem.n_parameters
    columns = torch.empty(count, size, dtype=context.problem.dtype, device=generator.device)
    for column in columns:  # one in float64 at a time
        column.copy_(
            torch.randn(size, generator=generator, dtype=torch.float64, device=generator.device)
        )
        for part, filters in zip(context.problem.split(column), context.filters, strict=True):
            filters.still(part)
    return columns
