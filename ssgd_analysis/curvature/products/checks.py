"""Products held against something independent, before anything is made of them.

A custom backward that keeps an intermediate value outside the graph has a wrong second derivative,
and autograd does not notice. Differences of first derivatives know nothing of second ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix
from ssgd_analysis.curvature.products.products import (
    DifferenceState,
    GraphState,
    State,
    differentiable,
)
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.weights import flattened

LONGER = 3.0  # times the step, a second time: differences at a kink change with the step
SLACK = 1e-5  # of ‖Hv‖: differences in float64 are right to about 1e-7
CLEAR = 4.0  # times what the two steps differ by: a gap above that is no kink


@dataclass(frozen=True)
class ProductChecks:
    """How products compare with differences of gradients, and with their own transpose.

    Args:
        difference: ‖Hv − D‖ / ‖D‖ for a random v, D a central difference of first derivatives;
            ``None`` where it could not be made, ``why`` says so.
        steps: what D differs by between two steps, relative to it: large at kinks.
        symmetry: |⟨u, Hv⟩ − ⟨v, Hu⟩| over ‖Hv‖ ‖u‖ / √P, the size of ⟨u, Hv⟩ for random u.
        dtype: in which the differences were made.
        why: why there is no difference, or what it can't tell.
    """

    difference: float | None
    steps: float | None
    symmetry: float
    dtype: str | None
    why: str = ""


def check_products(
    matrix: BatchMatrix, multiply: Callable[[Tensor], Tensor], *, differences: bool
) -> ProductChecks:
    """Compare one product with central differences over all batches, and two by symmetry.

    In float64 where a copy of the model allows it, else in the model's own precision. A
    difference that changes with its step lies at a kink of the loss and tells nothing.

    Args:
        matrix: of any batch; its problem has been checked.
        multiply: the product of the mean over all batches with a block, (P, K).
        differences: whether products are differences of gradients themselves.

    Raises:
        InputError: the product is not that of the loss, or not symmetric.
        WorkError: the product is not finite.
    """
    size = matrix.problem.n_parameters
    generator = torch.Generator(matrix.device).manual_seed(0)

    def draw() -> Tensor:
        """A random vector; padding rows have no gradient, so they are constants and stay."""
        whole = torch.randn(size, generator=generator, dtype=matrix.dtype, device=matrix.device)
        parts = zip(matrix.filters, matrix.problem.split(whole), strict=True)
        return flattened([filters.moving(part) for filters, part in parts])

    u, v = draw(), draw()
    found = matrix.no_differences
    if differences:
        found = "products are differences themselves"
    measured = found or _differences(matrix, v)
    product, other = multiply(torch.stack([v, u], dim=1)).T.contiguous()
    if not bool(product.isfinite().all()):
        raise WorkError(_not_finite(matrix, product, v))
    rounding = matrix.problem.tolerance
    unit = float(product.norm()) * float(u.norm()) / size**0.5
    away = abs(float(u @ product) - float(v @ other))
    symmetry = away / unit if unit else 0.0
    if symmetry > 30 * rounding and not differences:  # which are no exact matrix in float32
        raise InputError(
            f"products are not symmetric: ⟨u, Hv⟩ and ⟨v, Hu⟩ differ by {symmetry:.1%} of their"
            " size, so an operation of the model or the loss has a wrong second derivative:"
            " use finite differences (--product difference)"
        )
    if isinstance(measured, str):
        return ProductChecks(None, None, symmetry, None, measured)
    first, second, dtype, exact = measured
    if exact is None:
        exact, slack = product.to(first.dtype), 0.05 if dtype != torch.float64 else 10 * rounding
    else:  # float64 throughout, so that a small wrong layer shows beside large right ones
        slack = SLACK
    length = max(float(first.norm()), float(exact.norm()))
    gap = min(float((exact - first).norm()), float((exact - second).norm()))
    spread = float((first - second).norm())
    name = str(dtype).removeprefix("torch.")
    if not gap > slack * length:
        return ProductChecks(gap / length if length else 0.0, spread / max(length, 1e-300),
                             symmetry, name)  # fmt: skip
    if gap <= CLEAR * spread or not math.isfinite(gap):
        why = "differences change with their step: a kink of the loss at these weights"
        return ProductChecks(gap / length, spread / length, symmetry, name, why)
    raise InputError(
        f"a product differs by {gap / length:.1%} from central differences of first derivatives:"
        " an operation of the model or the loss has a wrong second derivative (a custom"
        " autograd.Function that keeps intermediate values outside the graph?):"
        " use finite differences (--product difference)"
    )


def _not_finite(matrix: BatchMatrix, product: Tensor, vector: Tensor) -> str:
    """Which parameters and which operation, as far as torch can tell."""
    parts = matrix.problem.split(product)
    names = [
        n for n, p in zip(matrix.problem.parameters, parts, strict=True) if not p.isfinite().all()
    ]
    culprit = ""
    for batch in matrix.problem.batches:
        try:
            with differentiable(matrix.problem), torch.autograd.set_detect_anomaly(True):
                multiply = matrix.build_product(batch)[1]
                multiply(matrix.problem.split(vector), range(len(parts)))
        except Exception as error:  # what anomaly mode found, or whatever a user's model raises
            text = first_line(error)
            if "nan values" in text:
                culprit = f" (in {text.split(chr(39))[1]})" if "'" in text else ""
                break
    return (
        f"the second derivative is not finite{culprit}, seen in {', '.join(names[:3])}"
        f"{' and more' if len(names) > 3 else ''}: keep roots, norms and powers away from zero"
        " (a small constant under the root), or use finite differences (--product difference)"
    )


def _differences(
    matrix: BatchMatrix, vector: Tensor
) -> tuple[Tensor, Tensor, torch.dtype, Tensor | None] | str:
    """The product by differences at two steps, in which precision, and by a copy in float64.

    Or why there is none. The copy's product is ``None`` where the differences need no copy.
    """
    reason = "no copy of the model in float64"
    for dtype in dict.fromkeys((torch.float64, matrix.problem.precision)):
        try:
            other = matrix.in_float64() if dtype == torch.float64 else matrix
            whole = vector.to(other.dtype)
            one, two = (_multiplied(other, whole, factor) for factor in (1.0, LONGER))
            exact = None if other is matrix else _multiplied(other, whole, None)
        except Exception as error:  # a user's model in another precision may raise anything
            if is_out_of_memory(error):
                return "not enough memory for a copy of the model in float64"
            reason = first_line(error)
            continue
        return one, two, dtype, exact
    return reason


def _multiplied(matrix: BatchMatrix, vector: Tensor, factor: float | None) -> Tensor:
    """Hv by differences with a multiple of their usual step, or by double backward (``None``)."""
    problem = matrix.problem
    total = torch.zeros_like(vector)
    for share, batch in zip(problem.shares, problem.batches, strict=True):
        state: State
        if factor is None:
            state = GraphState(matrix, batching.to(batch, matrix.device, matrix.dtype))
        else:
            state = DifferenceState(matrix, batch, factor)
        total.add_(flattened(state.multiply(problem.split(vector))), alpha=share)
    return total
