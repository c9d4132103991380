"""The Fisher-Rao norm of the weights."""

from ssgd_analysis.curvature import FisherOperator
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights import flattened


@metric(
    "Fisher-Rao norm: weights times Fisher matrix times weights",
    invariant_to=("layer", "neuron", "batchnorm", "permutation"),
)
def fisher_rao(context: MetricContext) -> Measurement:
    """⟨w, F w⟩ with the empirical Fisher F: the mean over examples of ⟨g_i, w⟩².

    In a bias-free ReLU net with L hidden layers it is (L + 1)² E⟨∂ℓ/∂f, f⟩². Where w′ = Dw, D
    diagonal, keeps the function, g′ = D⁻¹g and the value stays, with biases too: layer, neuron and
    BatchNorm scale. It is not invariant to the scale of the logits.

    Args:
        context: the problem.

    Returns:
        Squared nats; the error is that of sampling the examples.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, y, model = torch.eye(4), torch.arange(4) % 2, torch.nn.Linear(4, 2, bias=False)
        >>> _ = torch.nn.init.eye_(model.weight)
        >>> problem = Problem(model, torch.nn.CrossEntropyLoss(), [(x, y)])
        >>> round(flatness.fisher_rao(problem).value, 3)
        0.036

    Reference:
        Liang et al. 2019 (arXiv 1711.01530), definition 2 and theorem 3.1.
    """
    operator = FisherOperator(context.problem, options=context.options)
    weights = flattened(operator.parameters).detach().to(operator.dtype)
    values = [float(weights @ product[:, 0]) for _, product in operator.parts(weights[:, None])]
    context.pay(products=1)
    return of_batches(context, values, {"fisher": "empirical"})
