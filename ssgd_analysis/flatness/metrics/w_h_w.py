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

    Reference:
        Tsuzuku, Sato and Sugiyama 2020 (arXiv 1901.04653), on curvature relative to weights.
    """
    operator = context.operator
    weights = flattened(operator.parameters).detach().to(operator.dtype)
    image, (own,) = quotients(operator, weights.to(operator.dtype)[:, None])
    if not bool(image.isfinite().all()):
        raise WorkError("the Hessian's product is not finite at these weights")
    return of_batches(context, own.values[:, 0].tolist(), {})
