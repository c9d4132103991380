"""Traces of the Hessian's diagonal blocks, each in units of its block's weights."""

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.scaled import scaled_traces


@metric(
    "sum over parameter tensors of squared norm times trace of the Hessian's block",
    invariant_to=("layer", "batchnorm", "permutation"),
)
def layer_trace(context: MetricContext, *, probes: int = 32) -> Measurement:
    """Σ_l ‖w_l‖² Tr(H_ll), l over the parameter tensors: weights and biases apart.

    Apart, because rescaling a layer leaves the next one's bias as it is: with both in one block
    the sum would change. Hutchinson's probes of D H D, D = ‖w_l‖ on tensor l; with one seed every
    probe of a rescaled model gives the same number. Not invariant to the scale of single neurons.

    Args:
        context: the problem.
        probes: at least 2.

    Returns:
        Nats; the error is that of the probes, one sample each. Details: ``parameters``, each
        tensor's ‖w_l‖² Tr(H_ll).

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.layer_trace(problem).value, 3)  # ‖w‖² Tr H = 2 · 5
        10.0

    Reference:
        Petzka et al. 2021 (arXiv 2001.00939), whose relative flatness it bounds from above for
        one layer of a convex block; Tsuzuku et al. 2020 (arXiv 1901.04653).
    """
    return scaled_traces(
        context, "layer_trace", lambda weight: weight.norm().expand(weight.shape), probes
    )
