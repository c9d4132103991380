"""The share of negative eigenvalues of the Hessian."""

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import surveyed


@metric(
    "share of clearly negative eigenvalues of the Hessian",
    invariant_to=("permutation",),
    flatter=None,
)
def negative_mass(context: MetricContext) -> Measurement:
    """The share of eigenvalues below −c, c a thousandth of the largest |λ|.

    Zero at a minimum, larger at a saddle: it says what kind of point this is rather than how flat
    it is. From the density's Lanczos runs, whose moments leave open more than their probes do: the
    value is the middle of what they bound, and ``low`` to ``high`` of the details the 95% interval.

    Args:
        context: the problem.

    Returns:
        A share, 0 to 1; the error is of the interval, its length over 3.92. There are no samples:
        pairs of probes would cancel only the probes' part.

    Raises:
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.negative_mass(problem).value, 3)  # the Hessian is diag(1, 4)
        0.0

    Reference:
        Ghorbani et al. 2019 (arXiv 1901.10159); bounds by Chebyshev, Markov and Stieltjes, see
        :func:`ssgd_analysis.curvature.spectral_density`.
    """
    found = surveyed(context)
    share = found.density.negative
    details = {
        "threshold": found.density.threshold,
        "low": share.low,
        "high": share.high,
        "lowest": share.lowest,
        "highest": share.highest,
    }
    settings = {
        "probes": found.density.probes,
        "steps": found.density.steps,
        "seed": context.seed,
        "error": "probes",
    }
    return Measurement(share.value, share.stderr, settings, details=details)
