"""What the pair of S-SGD sees of the curvature."""

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import RELATIVE, Perturbation, metric
from ssgd_analysis.flatness.perturbed import s_sgd_pairs


@metric(
    "mean of both sides' loss less the clean loss under S-SGD's own noise",
    invariant_to=("layer", "batchnorm", "permutation", "folding"),
    radius="c",
    radii=RELATIVE,
    perturbs=Perturbation("noise", "c"),
)
def symmetric_gap(
    context: MetricContext,
    *,
    c: float = 0.1,
    law: str = "binary",
    scale: str = "filter",
    exclude: str = "1d",
    draws: int = 50,
) -> Measurement:
    """E_n ½[L(w + n) + L(w − n)] − L(w), n the noise that S-SGD trains with.

    ``expected`` at S-SGD's own law and scale: what its symmetric pair penalises beside the
    loss. So it is no independent evidence for S-SGD. The binary noise gives each weight the same
    magnitude: a quadratic with a diagonal Hessian has the same gap for every draw.

    Args:
        context: the problem.
        c: noise scale, relative to what ``scale`` names.
        law: ``binary``, ``gaussian``, ``sphere`` or ``uniform``.
        scale: ``filter``, ``layer``, ``weight`` (or ``element``) or ``none`` (absolute).
        exclude: parameters without noise, as in training: ``1d`` (biases, normalisation) or
            ``none``.
        draws: antithetic pairs, at least 2.

    Returns:
        Nats; the error is that of the draws.

    Raises:
        InputError: a negative c, fewer than 2 draws, an unknown law, scale or ``exclude``.
        WorkError: a loss is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.symmetric_gap(problem, draws=2).value, 3)
        0.025

    Reference:
        Sung et al. 2020 (arXiv 2009.02479), our reading of its noise.
    """
    found, settings = s_sgd_pairs(context, c, law, scale, exclude, draws)
    return of_draws(found.even.tolist(), settings)
