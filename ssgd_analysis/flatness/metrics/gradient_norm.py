"""The size of the gradient."""

import dataclasses
import math
from typing import Any

import torch

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.examples import example_gradients
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import Perturbation, metric
from ssgd_analysis.weights import flattened


@metric(
    "norm of the gradient of the mean loss over these examples",
    invariant_to=("permutation",),
    note="of these examples",
    perturbs=Perturbation("gradient"),
)
def gradient_norm(context: MetricContext) -> Measurement:
    """‖∇L(w)‖₂ of the mean loss over all examples.

    The error over examples is to first order, from each batch's ⟨∇L_b, ∇L⟩ / ‖∇L‖, which are the
    samples.

    The value is that of these examples. For a population that they are drawn from it is too
    large: E ‖∇L‖² = ‖g‖² + tr Σ / N. Details hold ``corrected_square`` = ‖∇L‖² − tr Σ / N (Σ as in
    ``gradient_covariance_trace``), unbiased for ‖g‖², ``corrected``, its root, or ``None`` where it
    is negative: there the examples can't tell the population's gradient from zero; and
    ``per_example_rms``, √(mean ‖g_i‖²) over the examples' own gradients. Where the loss is not a
    mean over examples only the last is there, ``None``.

    Args:
        context: the problem.

    Returns:
        Nats per weight unit; the error is that of sampling the examples.

    Raises:
        WorkError: the gradient is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.gradient_norm(problem).value, 3)  # the gradient is (-1, -4)
        4.123

    Reference:
        Zhao, Zhang and Hu 2022 (arXiv 2202.03599), who penalise it; McCandlish et al. 2018 (arXiv
        1812.06162), appendix A.1, for the correction.
    """
    norm = float(flattened(context.clean_gradient).norm())
    if not math.isfinite(norm):
        raise WorkError("the gradient is not finite at these weights")
    details: dict[str, Any] = {"per_example_rms": None}
    try:
        found = example_gradients(context)
    except InputError:
        inner = _inner(context)
    else:
        inner = found.inner
        details["per_example_rms"] = math.sqrt(context.problem.mean(found.squares))
        if (count := context.problem.n_samples) > 1:
            square = norm**2 - context.problem.mean(found.deviations) / (count - 1)
            details["corrected_square"] = square
            details["corrected"] = math.sqrt(square) if square >= 0 else None
    if norm == 0:  # a corner of the norm: no first order
        return Measurement(0.0, None, {"error": "examples"}, details=details)
    measured = of_batches(context, [value / norm for value in inner], {})
    return dataclasses.replace(measured, value=norm, details=details)


def _inner(context: MetricContext) -> list[float]:
    """⟨∇L_b, ∇L⟩ of each batch."""
    mean, problem = flattened(context.clean_gradient), context.problem
    found = []
    with problem.evaluating(), torch.enable_grad():
        for batch in problem.batches:
            loss = problem.batch_loss(batch)
            parts = torch.autograd.grad(loss, context.parameters, materialize_grads=True)
            found.append(float(flattened(parts) @ mean))
    context.pay(gradients=1)
    return found
