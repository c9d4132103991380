"""The batch size at which the gradient's noise is as large as the gradient."""

import dataclasses
import math

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.examples import example_gradients
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.metrics.gradient_covariance_trace import gradient_covariance_trace
from ssgd_analysis.weights import global_norm


@metric(
    "batch size whose gradient noise is as large as the gradient",
    invariant_to=("permutation",),
    flatter=None,
    needs=("a loss that is the mean of its examples' losses",),
)
def gradient_noise_scale(context: MetricContext) -> Measurement:
    """B_simple = tr Σ / ‖∇L‖², the batch size whose noise is as long as the gradient.

    The examples are taken for all there is, as SGD draws its batches from them: ‖∇L‖² is theirs
    and not corrected. As an estimate for a population that they are drawn from, ‖∇L‖² has the
    bias tr Σ / N; details hold ``corrected_square`` = ‖∇L‖² − tr Σ / N and ``corrected`` =
    tr Σ over it, ``None`` where that is not positive: there the examples can't tell the
    population's gradient from zero, as at every trained minimum. The error is to first order in
    both, which says little there; the samples are each batch's first-order ratio.

    Args:
        context: the problem.

    Returns:
        Examples; the error is that of sampling the examples.

    Raises:
        InputError: a gradient of zero, a single example, or a loss that is not the mean of its
            examples' losses.
        WorkError: the gradient is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.gradient_noise_scale(problem).value, 3)
        2.0

    Reference:
        McCandlish et al. 2018 (arXiv 1812.06162), eq. 2.9, and appendix A.1 for the correction,
        which with batches of 1 and N is the one above.
    """
    spread = gradient_covariance_trace.on(context)
    square = float(global_norm(context.clean_gradient)) ** 2
    if square == 0:
        raise InputError("the gradient is zero at these weights, so the noise scale is infinite")
    assert spread.samples is not None
    ratio = spread.value / square
    examples = example_gradients(context)
    each = [
        ratio + (own - spread.value) / square - 2 * ratio * (along / square - 1)
        for own, along in zip(spread.samples, examples.inner, strict=True)
    ]
    corrected = square - spread.value / examples.effective
    details = {
        "covariance_trace": spread.value,
        "gradient_norm": math.sqrt(square),
        "corrected_square": corrected,
        "corrected": spread.value / corrected if corrected > 0 else None,
    }
    found = of_batches(context, each, {})
    return dataclasses.replace(found, value=ratio, details=details)
