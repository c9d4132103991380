"""Products held against something independent, before anything is made of them.

A custom backward that keeps an intermediate value outside the graph has a wrong second derivative,
and autograd does not notice. Differences of first derivatives know nothing of second ones.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.curvature.products.products import (
    DifferenceState,
    GraphState,
    State,
    differentiable,
    in_float64,
)
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.weights import flattened

if TYPE_CHECKING:
    from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator

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


def check_products(operator: "ProblemOperator") -> ProductChecks:
    """Compare one product with central differences over all batches, and two by symmetry.

    In float64 where a copy of the model allows it, else in the model's own precision. A
    difference that changes with its step lies at a kink of the loss and tells nothing.

    Args:
        operator: of a problem that has been checked.

    Raises:
        InputError: the product is not that of the loss, or not symmetric.
        WorkError: the product is not finite.
    """
    size = operator.shape[0]
    generator = torch.Generator(operator.device).manual_seed(0)

    def draw() -> Tensor:
        """A random vector; padding rows have no gradient, so they are constants and stay."""
        whole = torch.randn(size, generator=generator, dtype=operator.dtype, device=operator.device)
        parts = zip(operator.filters, operator.problem.split(whole), strict=True)
        return flattened([filters.moving(part) for filters, part in parts])

    u, v = draw(), draw()
    differences = operator.engine.plan.way == "difference"
    found = "" if differences or not operator.differs else _differences(operator, v)
    operator.engine.forget()  # the weights may have been moved and put back
    product, other = _product(operator, v), _product(operator, u)
    if not bool(product.isfinite().all()):
        raise WorkError(_not_finite(operator, product, v))
    rounding = operator.problem.tolerance
    unit = float(product.norm()) * float(u.norm()) / size**0.5
    away = abs(float(u @ product) - float(v @ other))
    symmetry = away / unit if unit else 0.0
    if symmetry > 30 * rounding and not differences:  # which are no exact matrix in float32
        raise InputError(
            f"products are not symmetric: ⟨u, Hv⟩ and ⟨v, Hu⟩ differ by {symmetry:.1%} of their"
            " size, so an operation of the model or the loss has a wrong second derivative:"
            " use finite differences (--product difference)"
        )
    if differences:
        return ProductChecks(None, None, symmetry, None, "products are differences themselves")
    if not operator.differs:
        return ProductChecks(None, None, symmetry, None, "labels are drawn")
    if isinstance(found, str):
        return ProductChecks(None, None, symmetry, None, found)
    first, second, dtype, exact = found
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


def _product(operator: "ProblemOperator", vector: Tensor) -> Tensor:
    """The product, not counted among the operator's."""
    total = torch.zeros_like(vector)
    for index, share in enumerate(operator.problem.shares):
        total.add_(operator.engine.multiply(index, vector[:, None])[:, 0], alpha=share)
    return total


def _not_finite(operator: "ProblemOperator", product: Tensor, vector: Tensor) -> str:
    """Which parameters and which operation, as far as torch can tell."""
    parts = operator.problem.split(product)
    names = [
        n for n, p in zip(operator.problem.parameters, parts, strict=True) if not p.isfinite().all()
    ]
    culprit = ""
    for batch in operator.problem.batches:
        try:
            with differentiable(operator.problem), torch.autograd.set_detect_anomaly(True):
                multiply = operator.multiplier(batch)[1]
                multiply(operator.problem.split(vector), range(len(parts)))
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
    operator: "ProblemOperator", vector: Tensor
) -> tuple[Tensor, Tensor, torch.dtype, Tensor | None] | str:
    """The product by differences at two steps, in which precision, and by a copy in float64.

    Or why there is none. The copy's product is ``None`` where the differences need no copy.
    """
    reason = "no copy of the model in float64"
    for dtype in dict.fromkeys((torch.float64, operator.problem.precision)):
        try:
            other = in_float64(operator) if dtype == torch.float64 else operator
            whole = vector.to(other.dtype)
            one, two = (_multiplied(other, whole, factor) for factor in (1.0, LONGER))
            exact = None if other is operator else _multiplied(other, whole, None)
        except Exception as error:  # a user's model in another precision may raise anything
            if is_out_of_memory(error):
                return "not enough memory for a copy of the model in float64"
            reason = first_line(error)
            continue
        return one, two, dtype, exact
    return reason


def _multiplied(operator: "ProblemOperator", vector: Tensor, factor: float | None) -> Tensor:
    """Hv by differences with a multiple of their usual step, or by double backward (``None``)."""
    problem = operator.problem
    total = torch.zeros_like(vector)
    for share, batch in zip(problem.shares, problem.batches, strict=True):
        state: State
        if factor is None:
            state = GraphState(operator, batching.to(batch, operator.device, operator.dtype))
        else:
            state = DifferenceState(operator, batch, factor)
        total.add_(flattened(state.multiply(problem.split(vector))), alpha=share)
    return total
