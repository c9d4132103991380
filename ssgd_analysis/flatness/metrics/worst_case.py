"""Worst-case sharpness: ascent within a ball of absolute radius."""

from ssgd_analysis.flatness.ascent import STARTS, worst
from ssgd_analysis.flatness.ball import Ball
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import BALL, BALL_LINF, Perturbation, metric


@metric(
    "largest rise of the loss found within a ball of radius rho, a lower bound",
    invariant_to=("permutation",),
    radius="rho",
    radii=BALL,
    linf_radii=BALL_LINF,
    note="lower bound",
    perturbs=Perturbation("ascent", "rho"),
)
def worst_case(
    context: MetricContext,
    *,
    rho: float = 0.05,
    norm: str = "l2",
    steps: int = 20,
    starts: int = STARTS,
) -> Measurement:
    """Max L(w + e) − L(w) over ‖e‖ ≤ ρ, a lower bound: the best of several ascents (APGD).

    See :func:`ssgd_analysis.flatness.ascent.search`; with L2 the first step of the first ascent
    is the one of :func:`sam`, so it is never less than that. Not invariant to any
    rescaling of the weights.

    Args:
        context: the problem.
        rho: radius over all parameters: L2 norm, or with ``linf`` the largest entry.
        norm: ``l2`` or ``linf``.
        steps: of each ascent that is made in full, one gradient each.
        starts: of the search, as many for every model; 0: until the best stops rising.

    Returns:
        Nats; the error is that of sampling the examples, at the perturbation found. Details: the
        spread of the starts, see :func:`ssgd_analysis.flatness.ascent.worst`.

    Raises:
        InputError: a setting out of range.
        WorkError: a loss or gradient in the ball is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.worst_case(problem, rho=0.1).value, 3)  # ½ λ_max rho²
        0.02

    Reference:
        Foret et al. 2021 (arXiv 2010.01412), eq. 1, the maximum that SAM's one step stands for;
        Croce and Hein 2020 (arXiv 2003.01690) for the ascent.
    """
    return worst(context, Ball(rho, norm), steps, starts, None, "worst_case")
