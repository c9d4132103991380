"""Random vectors whose second moment is the identity."""

import torch
from torch import Tensor

from ssgd_analysis.curvature.operators.operator import Operator

BLOCK = 8  # probes multiplied at once share each batch's state


def rademacher(operator: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Columns of independent fair signs, shape (P, count)."""
    block = torch.empty(operator.shape[0], count, dtype=operator.dtype, device=operator.device)
    return block.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def gaussian(operator: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Columns of independent standard normal numbers, shape (P, count)."""
    return torch.randn(
        operator.shape[0],
        count,
        generator=generator,
        dtype=operator.dtype,
        device=operator.device,
    )
