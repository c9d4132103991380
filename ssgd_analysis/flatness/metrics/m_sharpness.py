"""m-sharpness: the worst case of every m examples by themselves."""

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.ascent import STARTS, worst
from ssgd_analysis.flatness.ball import Ball
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import BALL, BALL_LINF, Perturbation, metric


@metric(
    "mean over groups of m examples of each group's own worst case, a lower bound",
    invariant_to=("permutation",),
    radius="rho",
    radii=BALL,
    linf_radii=BALL_LINF,
    note="lower bound",
    perturbs=Perturbation("ascent", "rho"),
)
def m_sharpness(
    context: MetricContext,
    *,
    rho: float = 0.05,
    m: int = 128,
    steps: int = 20,
    norm: str = "l2",
    starts: int = STARTS,
) -> Measurement:
    """E_B max_{‖e‖ ≤ ρ} L_B(w + e) − L_B(w), B running over groups of m examples.

    Each group finds its own worst perturbation (a lower bound, see
    :func:`ssgd_analysis.flatness.ascent.search`), so the value does not fall
    with smaller m: every group may do at least as well as with the perturbation of all. The
    groups are the examples in their order, whatever the problem's batches. Not invariant to any
    rescaling of the weights.

    Args:
        context: the problem.
        rho: radius over all parameters: L2 norm, or with ``linf`` the largest entry.
        m: examples of a group; with as many as there are it is :func:`worst_case`.
        steps: of each ascent that is made in full, one gradient of the group each.
        norm: ``l2`` or ``linf``.
        starts: of each group's search; 0: until its best stops rising.

    Returns:
        Nats; the error is that of sampling groups. Details: the spread of the starts, see
        :func:`ssgd_analysis.flatness.ascent.worst`.

    Raises:
        InputError: a setting out of range, or batches that can't be cut to m examples.
        WorkError: a loss or gradient in the ball is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.m_sharpness(problem, rho=0.1, m=1).value, 3)
        0.025

    Reference:
        Foret et al. 2021 (arXiv 2010.01412), section 4.1; there by one step.
    """
    if m < 1:
        raise InputError(f"m {m} should be ≥ 1")
    return worst(context, Ball(rho, norm), steps, starts, m, "m_sharpness")
