"""The largest eigenvalue of the Hessian."""

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import spectrum


@metric(
    "largest eigenvalue of the Hessian",
    invariant_to=("permutation",),
    label="λ_max",
    compared=True,
)
def lambda_max(context: MetricContext, *, tol: float = 1e-3) -> Measurement:
    """The largest eigenvalue (algebraic) of the Hessian of the mean loss.

    Not invariant to any rescaling of the weights: compare it between equal weight norms and
    train losses only (Dinh et al. 2017).

    Args:
        context: the problem.
        tol: relative residual at which Lanczos stops.

    Returns:
        Nats per squared weight unit; the error is that of sampling the examples.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.lambda_max(problem).value, 3)  # the Hessian is diag(1, 4)
        4.0
    """
    pair = spectrum(context, 1, tol).largest[0]
    settings = {"tol": tol, "residual": pair.residual, "seed": context.seed, "error": "examples"}
    return Measurement(pair.value, pair.stderr, settings)
