"""The trace of an operator, by Hutchinson's estimator."""

from dataclasses import dataclass

import torch

from ssgd_analysis.curvature.operator import Operator
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress

BLOCK = 8  # probes multiplied at once share each batch's graph


@dataclass(frozen=True)
class Trace:
    """A trace estimate.

    Args:
        value: mean over the probes.
        stderr: the probes' standard error (infinite with one probe).
        probes: how many were drawn.
    """

    value: float
    stderr: float
    probes: int


def trace(
    operator: Operator,
    *,
    generator: torch.Generator,
    probes: int = 32,
    progress: Progress = SILENT,
) -> Trace:
    """tr(H) = E[zᵀHz] over Rademacher probes z: unbiased, with its standard error.

    A fixed number of probes: stopping when two running means are close would stop by luck.

    Args:
        operator: symmetric, shape (P, P).
        generator: on the operator's device; draws the probes.
        probes: how many, at least 2.
        progress: told of every product.

    Raises:
        InputError: fewer than two probes.

    Reference:
        Hutchinson 1990. Var = 2 (‖H‖²_F − Σ H_ii²): exact on a diagonal matrix.
    """
    if probes < 2:
        raise InputError(f"the trace needs at least 2 probes for its error, not {probes}")
    progress.start("trace", probes)
    samples = []
    for first in range(0, probes, BLOCK):
        count = min(BLOCK, probes - first)
        block = torch.empty(
            operator.shape[0], count, dtype=operator.dtype, device=operator.device
        ).bernoulli_(0.5, generator=generator)
        block.mul_(2).sub_(1)
        samples.append((block * (operator @ block)).sum(dim=0, dtype=torch.float64))
        progress.advance(count)
    values = torch.cat(samples)
    return Trace(float(values.mean()), float(values.std() / probes**0.5), probes)
