"""The mean eigenvalue of the Hessian."""

import dataclasses

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.metrics.trace import trace


@metric(
    "mean eigenvalue of the Hessian",
    invariant_to=("permutation",),
)
def trace_per_parameter(context: MetricContext, *, probes: int = 32) -> Measurement:
    """Tr(H) / P, the mean of the P eigenvalues: for networks of different size.

    It shares its probes with ``trace``. P counts the parameters that require gradients, tied
    ones once.

    Args:
        context: the problem.
        probes: Rademacher probes, at least 2.

    Returns:
        Nats per squared weight unit; the error is that of the probes, one sample each.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.trace_per_parameter(problem).value, 3)  # the Hessian is diag(1, 4)
        2.5

    Reference:
        Dong et al. 2020 (arXiv 1911.03852), the average trace by which they compare layers.
    """
    found = trace.on(context, probes=probes)
    assert found.samples is not None
    size = context.problem.n_parameters
    scaled = of_draws([sample / size for sample in found.samples], found.settings)
    return dataclasses.replace(scaled, details={"n_parameters": size})
