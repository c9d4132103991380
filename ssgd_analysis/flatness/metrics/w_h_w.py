"""The curvature along the weights."""

from ssgd_analysis.curvature.operators.sampling import quotients
from ssgd_analysis.errors import WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights import flattened


@metric(
    "curvature along the weights, w·Hw",
    invariant_to=("layer", "neuron", "batchnorm", "permutation"),
)
def w_h_w(context: MetricContext) -> Measurement:
    """wᵀHw: the second derivative of the loss when all weights grow by the same share.

    Where a diagonal change of the weights, w′ = Dw, keeps the function, H′ = D⁻¹HD⁻¹ and the value
    stays: layer, neuron and BatchNorm scale. It sees one direction only, and can be negative.

    Args:
        context: the problem.

    Returns:
        Nats; the error is that of sampling the examples.

    Raises:
        WorkError: the product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.w_h_w(problem).value, 3)  # w = (1, 1), H = diag(1, 4)
        5.0

    Reference:
        Tsuzuku, Sato and Sugiyama 2020 (arXiv 1901.04653), on curvature relative to weights.
    """
    operator = context.operator
    weights = flattened(operator.parameters).detach().to(operator.dtype)
    image, (own,) = quotients(operator, weights.to(operator.dtype)[:, None])
    if not bool(image.isfinite().all()):
        raise WorkError("the Hessian's product is not finite at these weights")
    return of_batches(context, own.values[:, 0].tolist(), {})
