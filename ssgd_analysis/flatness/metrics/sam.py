"""SAM sharpness: the rise of the loss after one ascent step."""

import math

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, rise
from ssgd_analysis.flatness.metric import BALL, Perturbation, metric
from ssgd_analysis.weights import global_norm


@metric(
    "rise of the loss after one ascent step of length rho, below the worst case there",
    invariant_to=("permutation",),
    radius="rho",
    radii=BALL,
    note="one step, of these examples",
    perturbs=Perturbation("ascent", "rho"),
)
def sam(context: MetricContext, *, rho: float = 0.05) -> Measurement:
    """L(w + ρ g/‖g‖) − L(w), g the gradient of the mean loss over all examples.

    One first-order step by definition: no search, and a lower bound of the worst case in the L2
    ball of radius ρ (:func:`worst_case`), often far below it. Where the gradient is exactly zero
    there is no direction to go and the value is zero. The step follows these examples' own
    gradient: for a population that they are drawn from the value is too large, to first order by
    as much as ρ times the excess of their :func:`gradient_norm`.

    Args:
        context: the problem.
        rho: radius, L2 norm over all parameters.

    Returns:
        Nats; the error is that of sampling the examples, at this perturbation.

    Raises:
        InputError: a negative or infinite radius.
        WorkError: the gradient is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.sam(problem, rho=0.05).value, 3)
        0.211

    Reference:
        Foret et al. 2021 (arXiv 2010.01412), eq. 2.
    """
    if not 0 <= rho < math.inf:
        raise InputError(f"rho {rho} should be ≥ 0 and finite")
    gradient, before = context.clean_gradient, context.clean_losses
    norm = float(global_norm(gradient))
    if not math.isfinite(norm):
        raise WorkError("the gradient is not finite at these weights")
    if norm == 0:
        return rise(context, before, {"rho": rho})
    with context.moved() as clean:
        context.put(clean, gradient, rho / norm)
        after = context.losses()
    return rise(context, after, {"rho": rho})
