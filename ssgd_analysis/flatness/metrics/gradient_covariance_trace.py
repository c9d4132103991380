"""The spread of the examples' gradients."""

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.examples import example_gradients
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric


@metric(
    "spread of the examples' gradients: trace of their covariance",
    invariant_to=("permutation", "decay"),
    needs=("a loss that is the mean of its examples' losses",),
)
def gradient_covariance_trace(context: MetricContext) -> Measurement:
    """Tr Σ = 1/(N − 1) Σ ‖g_i − ∇L‖², g_i the gradient of example i's own loss.

    Where examples count unequally in the loss (class weights, labels that are ignored) it is
    their weighted mean, times N/(N − 1) with the effective number N = (Σ w_i)² / Σ w_i².

    The unbiased form; the operator ``covariance`` divides by N instead. Exact over the examples,
    no probes. A minibatch of B examples drawn with replacement has the gradient noise Σ / B.

    Args:
        context: the problem.

    Returns:
        Squared nats per squared weight unit; the error is that of sampling the examples.

    Raises:
        InputError: a single example, or a loss that is not the mean of its examples' losses.
        WorkError: the gradient is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.gradient_covariance_trace(problem).value, 3)
        34.0

    Reference:
        McCandlish et al. 2018 (arXiv 1812.06162), section 2.2.
    """
    if context.problem.n_samples < 2:
        raise InputError("gradients need at least two examples to have a spread")
    found = example_gradients(context)
    if found.effective <= 1 + 1e-9:
        raise InputError(
            "the loss counts a single example, and gradients need at least two to have a spread"
        )
    factor = found.effective / (found.effective - 1)
    each = [factor * value for value in found.deviations]
    return of_batches(context, each, {"divisor": "N - 1"})
