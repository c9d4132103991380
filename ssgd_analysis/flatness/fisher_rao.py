"""The Fisher-Rao norm of the weights."""

from collections.abc import Iterable

from torch import nn

from ssgd_analysis.curvature import FisherOperator
from ssgd_analysis.flatness.measurement import Measurement, mean_with_error
from ssgd_analysis.problem import Batch, Loss
from ssgd_analysis.weights import flattened


def fisher_rao(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], *, seed: int = 0
) -> Measurement:
    """⟨w, F w⟩ with the empirical Fisher F: the mean over examples of ⟨g_i, w⟩².

    In a bias-free ReLU net with L hidden layers it is (L + 1)² E⟨∂ℓ/∂f, f⟩², invariant to
    layer and neuron scale. It is not invariant to the scale of the logits.

    Args:
        model: any ``nn.Module``.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs.
        seed: not needed, nothing is random.

    Returns:
        Squared nats; the error is that of sampling the examples.

    Reference:
        Liang et al. 2019 (arXiv 1711.01530), definition 2 and theorem 3.1.
    """
    operator = FisherOperator(model, loss, batches)
    weights = flattened(operator.parameters).detach()
    values = [float(weights @ product[:, 0]) for _, product in operator.parts(weights[:, None])]
    value, error = mean_with_error(operator.problem, values)
    return Measurement(value, error, {"fisher": "empirical", "error": "examples"})
