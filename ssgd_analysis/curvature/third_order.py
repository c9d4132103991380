"""The third derivative of the loss along a direction: what symmetric weight noise descends."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.curvature.products.plain import PlainOperations
from ssgd_analysis.curvature.products.products import check_twice_differentiable, differentiable
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import borrowed_weights, flattened

ROUNDING = 1e3  # machine epsilons of the gradients, below which their difference says nothing


@dataclass(frozen=True)
class ScalarEstimate:
    """A number with its standard error.

    Args:
        value: the estimate; ``None`` where it is not defined.
        stderr: its standard error over the draws.
    """

    value: float | None
    stderr: float | None


@dataclass(frozen=True)
class SymmetricAlignment:
    """Does the symmetric gradient's surplus follow the trace of the curvature?

    With the surplus s(n) = ½[∇L(w + n) + ∇L(w − n)] − ∇L(w) and t(n) = ½ ∇(nᵀHn), s → t as
    n → 0, and the mean of t over n is ½ ∇Tr(ΣH), Σ = E[nnᵀ] held constant. All of them are
    ``None`` where one of the two is zero up to rounding, as on a quadratic.

    Args:
        cosine: of s(n) and t(n), mean over the draws.
        ratio: ‖s(n)‖ / ‖t(n)‖, mean over the draws.
        trace_cosine: of the draws' mean s and mean t, the latter an estimate of ½ ∇Tr(ΣH).
            Its stderr is half the difference of two halves of the draws: rough.
        trace_ratio: the same for the ratio of their norms.
        agreement: cosine of the mean t of one half of the draws and of the other: how well
            so few draws know the direction of ∇Tr(ΣH); 1 is perfectly.
        share: ‖mean t‖ / ‖∇L(w)‖.
        draws: how many n.
    """

    cosine: ScalarEstimate
    ratio: ScalarEstimate
    trace_cosine: ScalarEstimate
    trace_ratio: ScalarEstimate
    agreement: float | None
    share: float | None
    draws: int


def curvature_slope(problem: Problem, direction: list[Tensor]) -> Tensor:
    """½ ∇_w (nᵀ H(w) n) = ½ D³L[n, n, ·], exactly, by three backward passes a batch.

    Kinks count for nothing: a ReLU network's loss has in truth part of its third derivative
    there, and automatic differentiation does not see it.

    Args:
        problem: a loss with three derivatives.
        direction: n, one tensor for each parameter.

    Returns:
        Shape (P,).

    Raises:
        InputError: an operation of the model has no third derivative in torch.
    """
    parameters = list(problem.parameters.values())
    total = torch.zeros(problem.n_parameters, dtype=problem.dtype, device=problem.device)

    def slope(value: Tensor, last: bool = False) -> list[Tensor]:
        if not value.requires_grad:  # the loss has no further derivative: it is zero
            return [torch.zeros_like(parameter) for parameter in parameters]
        check_twice_differentiable([value])
        return list(
            torch.autograd.grad(value, parameters, create_graph=not last, materialize_grads=True)
        )

    def along(gradient: list[Tensor]) -> Tensor:
        return torch.stack([(g * n).sum() for g, n in zip(gradient, direction, strict=True)]).sum()

    with differentiable(problem), PlainOperations(order=3):
        for share, batch in zip(problem.shares, problem.batches, strict=True):
            try:
                first = along(slope(problem.batch_loss(batch)))
                third = slope(along(slope(first)), last=True)
            except (NotImplementedError, RuntimeError) as error:
                if "derivative" not in str(error) and "differentiable" not in str(error):
                    raise
                raise InputError(
                    f"the model has no third derivative in torch: {first_line(error)}"
                ) from error
            total.add_(flattened(third).detach(), alpha=share / 2)
    return total


def symmetric_alignment(problem: Problem, noises: Iterable[list[Tensor]]) -> SymmetricAlignment:
    """Measured symmetric gradients beside the third derivative that they should follow.

    The surplus is a small difference of gradients: use float64.

    Args:
        problem: in float64; its weights come back bit for bit.
        noises: draws of n, at least two, each one tensor for each parameter.

    Raises:
        InputError: see :func:`curvature_slope`.

    Reference:
        S-SGD (arXiv 2009.02479) and its expansion: E[g_sym] = ∇(L + ½ Tr(ΣH)) + O(n⁴).
    """
    weights = list(problem.parameters.values())
    plain = flattened(problem.gradient())
    pairs: list[tuple[float | None, float | None]] = []
    sums = torch.zeros(2, 2, len(plain), dtype=plain.dtype, device=plain.device)  # half, s or t
    rounding = 0.0  # of one surplus
    for draw, noise in enumerate(noises):
        ahead, behind = (flattened(_gradient_at(problem, weights, noise, s)) for s in (1, -1))
        surplus, slope = (ahead + behind) / 2 - plain, curvature_slope(problem, noise)
        size = max(float(g.norm()) for g in (plain, ahead, behind))
        rounding = max(rounding, ROUNDING * torch.finfo(plain.dtype).eps * size)
        pairs.append(_compare(surplus, slope, rounding))
        sums[draw % 2] += torch.stack([surplus, slope])
    halves = [_compare(s, t, rounding * len(pairs)) for s, t in sums]
    whole = sums.sum(dim=0)
    mean = _compare(whole[0], whole[1], rounding * len(pairs))
    size, gradient = float(whole[1].norm()) / len(pairs), float(plain.norm())
    trace_cosine, trace_ratio = (
        ScalarEstimate(value, None if None in (a, b) else abs(a - b) / 2)
        for value, a, b in zip(mean, *halves, strict=True)
    )
    return SymmetricAlignment(
        cosine=_mean([cosine for cosine, _ in pairs]),
        ratio=_mean([ratio for _, ratio in pairs]),
        trace_cosine=trace_cosine,
        trace_ratio=trace_ratio,
        agreement=_compare(sums[0, 1], sums[1, 1], rounding * len(pairs))[0],
        share=size / gradient if gradient and mean[0] is not None else None,
        draws=len(pairs),
    )


def _gradient_at(
    problem: Problem, weights: list[Tensor], noise: list[Tensor], sign: int
) -> list[Tensor]:
    with borrowed_weights(weights):
        with torch.no_grad():
            for weight, step in zip(weights, noise, strict=True):
                weight.add_(step, alpha=sign)
        return problem.gradient()


def _compare(one: Tensor, other: Tensor, rounding: float) -> tuple[float | None, float | None]:
    """Cosine and ratio of the norms, or nothing where a norm drowns in rounding."""
    a, b = float(one.norm()), float(other.norm())
    if not (math.isfinite(a) and math.isfinite(b)) or min(a, b) <= rounding:
        return None, None
    return float(one @ other) / (a * b), a / b


def _mean(values: list[float | None]) -> ScalarEstimate:
    defined = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    if len(defined) < len(values):
        return ScalarEstimate(None, None)
    error = float(defined.std()) / len(defined) ** 0.5 if len(defined) > 1 else None
    return ScalarEstimate(float(defined.mean()), error)
