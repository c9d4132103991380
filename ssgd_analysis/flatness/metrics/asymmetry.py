"""How far the two sides of a minimum differ."""

import dataclasses

import numpy as np

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import RELATIVE, Perturbation, metric
from ssgd_analysis.flatness.perturbed import s_sgd_pairs


@metric(
    "half the difference of both sides' loss under S-SGD's own noise, mean size",
    invariant_to=("layer", "batchnorm", "permutation", "folding"),
    radius="c",
    radii=RELATIVE,
    flatter=None,
    perturbs=Perturbation("noise", "c"),
)
def asymmetry(
    context: MetricContext,
    *,
    c: float = 0.1,
    law: str = "binary",
    scale: str = "filter",
    exclude: str = "1d",
    draws: int = 50,
) -> Measurement:
    """E_n |½[L(w + n) − L(w − n)]|, n the noise that S-SGD trains with.

    The mean without the absolute value is zero by the symmetry of n. To first order the value is
    E|⟨∇L, n⟩|: away from a stationary point it measures the gradient, and only at one the third
    order, asymmetric valleys. Beside ``symmetric_gap`` it says which share of a single
    perturbation's rise the pair cancels.

    Args:
        context: the problem.
        c: noise scale, relative to what ``scale`` names.
        law: ``binary``, ``gaussian``, ``sphere`` or ``uniform``.
        scale: ``filter``, ``layer``, ``weight`` (or ``element``) or ``none`` (absolute).
        exclude: parameters without noise, as in training: ``1d`` (biases, normalisation) or
            ``none``.
        draws: antithetic pairs, at least 2.

    Returns:
        Nats; the error is that of the draws. ``details``: the root mean square over draws, and
        the even part's mean, which is ``symmetric_gap``.

    Raises:
        InputError: a negative c, fewer than 2 draws, an unknown law, scale or ``exclude``.
        WorkError: a loss is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, y, model = torch.eye(4), torch.arange(4) % 2, torch.nn.Linear(4, 2, bias=False)
        >>> _ = torch.nn.init.eye_(model.weight)
        >>> problem = Problem(model, torch.nn.CrossEntropyLoss(), [(x, y)])
        >>> round(flatness.asymmetry(problem, draws=4).value, 3)
        0.008

    Reference:
        He et al. 2019 (arXiv 1902.00744) for asymmetric valleys; the statistic is ours.
    """
    found, settings = s_sgd_pairs(context, c, law, scale, exclude, draws)
    details = {
        "rms": float(np.sqrt(np.square(found.odd).mean())),
        "symmetric_gap": float(found.even.mean()),
    }
    return dataclasses.replace(of_draws(np.abs(found.odd).tolist(), settings), details=details)
