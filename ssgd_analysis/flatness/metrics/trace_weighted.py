"""The trace of the Hessian in relative coordinates."""

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.scaled import scaled_traces


@metric(
    "trace of the Hessian in units of each weight, Σ w² H_ii",
    invariant_to=("layer", "neuron", "batchnorm", "permutation"),
)
def trace_weighted(context: MetricContext, *, probes: int = 32) -> Measurement:
    """Tr(diag(w²) H) = Σ w_i² H_ii, by E[(w∘z)ᵀ H (w∘z)] over Rademacher z.

    To second order it is 2/σ² times ``expected`` with noise relative to each weight, without
    that one's higher orders. With one seed every probe of a rescaled model gives the same
    number, so layer, neuron and BatchNorm scale leave it alone exactly.

    Args:
        context: the problem.
        probes: at least 2.

    Returns:
        Nats; the error is that of the probes, one sample each. Details: ``parameters``, each
        tensor's part.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.trace_weighted(problem).value, 3)  # w = (1, 1), H = diag(1, 4)
        5.0

    Reference:
        Petzka et al. 2021 (arXiv 2001.00939) and Tsuzuku et al. 2020 (arXiv 1901.04653), on
        curvature relative to weights; Hutchinson 1990.
    """
    return scaled_traces(context, "trace_weighted", lambda weight: weight, probes)
