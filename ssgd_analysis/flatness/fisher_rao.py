"""The Fisher-Rao norm of the weights."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from ssgd_analysis.curvature import FisherOperator
from ssgd_analysis.curvature.sampling import weighted_stderr
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.problem import Batch, Loss


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
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in operator.parameters])
    shares, values = [], []
    for share, product in operator.parts(weights[:, None]):
        shares.append(share)
        values.append(float(weights @ product[:, 0]))
    error = weighted_stderr(np.array(shares), np.array(values))
    value = math.fsum(s * v for s, v in zip(shares, values, strict=True))
    settings = {"fisher": "empirical", "error": "examples"}
    return Measurement(value, None if error is None else float(error), settings)
