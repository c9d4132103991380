"""Traces of the Hessian in other units of the weights, tensor by tensor."""

import dataclasses
from collections.abc import Callable

import numpy as np
from torch import Tensor

from ssgd_analysis.curvature import ScaledOperator
from ssgd_analysis.curvature.estimates.probes import BLOCK, rademacher
from ssgd_analysis.curvature.operators.sampling import quotients
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.weights import flattened


def tensor_slices(context: MetricContext) -> dict[str, slice]:
    """The slice of the P entries that each parameter tensor takes up."""
    found, start = {}, 0
    for name, parameter in context.problem.parameters.items():
        found[name] = slice(start, start + parameter.numel())
        start += parameter.numel()
    return found


def scaled_traces(
    context: MetricContext, name: str, size: Callable[[Tensor], Tensor], probes: int
) -> Measurement:
    """Tr(D H D) for a diagonal D, by Rademacher probes of the stream ``"trace"``.

    Args:
        context: the problem.
        name: of the metric.
        size: D's entries for one parameter tensor, of its shape.
        probes: at least 2.

    Returns:
        The mean of the probes with their error; details ``parameters``: name, value and standard
        error of each tensor's part.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.
    """
    if probes < 2:
        raise InputError(f"{name}: probes {probes} should be at least 2, to give a standard error")
    diagonal = flattened(size(parameter.detach()) for parameter in context.parameters)
    operator, blocks = ScaledOperator(context.operator, diagonal), tensor_slices(context)
    generator = context.generator("trace")
    estimates: list[np.ndarray] = []
    for first in range(0, probes, BLOCK):
        block = rademacher(operator, min(BLOCK, probes - first), generator)
        parts = quotients(operator, block, list(blocks.values()))[1]
        estimates.append(np.array([part.mean() for part in parts]))
    table = np.concatenate(estimates, axis=1)  # (tensors, probes)
    if not np.isfinite(table).all():
        raise WorkError(f"{name}: the Hessian's products are not finite at these weights")
    rows = []
    for tensor, values in zip(blocks, table, strict=True):
        own = of_draws(values.tolist(), {})
        rows.append({"name": tensor, "value": own.value, "stderr": own.stderr})
    found = of_draws(
        table.sum(axis=0).tolist(), {"probes": probes, "seed": context.seed, "error": "probes"}
    )
    return dataclasses.replace(found, details={"parameters": rows})
