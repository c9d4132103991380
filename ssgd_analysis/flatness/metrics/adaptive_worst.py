"""Adaptive worst-case sharpness: ascent within an elementwise relative ball."""

from ssgd_analysis.flatness.ascent import STARTS, worst
from ssgd_analysis.flatness.ball import Ball
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import Perturbation, metric


@metric(
    "largest rise of the loss found within an elementwise relative ball, a lower bound",
    invariant_to=("layer", "neuron", "batchnorm", "permutation"),
    radius="rho",
    radii=(0.1, 0.2, 0.5, 1.0, 2.0),
    linf_radii=(0.001, 0.002, 0.004, 0.008),
    note="lower bound",
    compared=True,
    perturbs=Perturbation("adaptive ascent", "rho"),
)
def adaptive_worst(
    context: MetricContext,
    *,
    rho: float = 0.5,
    norm: str = "l2",
    steps: int = 20,
    m: int = 0,
    starts: int = STARTS,
) -> Measurement:
    """Max L(w + |w|∘u) − L(w) over ‖u‖ ≤ ρ, a lower bound: the best of ascents on u (APGD).

    See :func:`ssgd_analysis.flatness.ascent.search`. Invariant to layer, neuron and BatchNorm
    scale, as |w|∘u scales with w. Weights that are zero stay zero.

    Args:
        context: the problem.
        rho: radius of the relative perturbation over all parameters: its L2 norm, or with
            ``linf`` its largest entry (a thousandth of each weight, about 0.001 to 0.01, is much).
        norm: ``l2`` or ``linf``.
        steps: of each ascent that is made in full, one gradient each.
        m: the mean over groups of m examples of each group's own maximum, as published with
            m = 128; 0: one maximum of the mean loss over all examples.
        starts: of the search, as many for every model; 0: until the best stops rising.

    Returns:
        Nats; the error is that of sampling the examples, at the perturbation found. Details: the
        spread of the starts, see :func:`ssgd_analysis.flatness.ascent.worst`.

    Raises:
        InputError: a setting out of range, or with ``m`` batches that can't be cut.
        WorkError: a loss or gradient in the ball is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.adaptive_worst(problem, rho=0.1).value, 3)
        0.02

    Reference:
        Andriushchenko et al. 2023 (arXiv 2302.07011), eq. 2 with c = |w|; Kwon et al. 2021 (arXiv
        2102.11600); Croce and Hein 2020 (arXiv 2003.01690) for the ascent.
    """
    return worst(context, Ball(rho, norm, relative=True), steps, starts, m, "adaptive_worst")
