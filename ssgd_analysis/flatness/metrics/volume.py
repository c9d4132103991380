"""The radius of the basin: how far along random directions the loss stays low."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.crossing import crossing
from ssgd_analysis.flatness.measurement import Measurement, of_median
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights import Noise

START, LIMIT = 0.1, 100.0  # of relative distances; 100 times the weights leave no network


@metric(
    "median relative distance along random directions at which the loss has risen",
    invariant_to=("layer", "batchnorm", "permutation", "folding"),
    flatter="higher",
)
def volume(
    context: MetricContext, *, rise: float = 0.1, directions: int = 20, tolerance: float = 0.01
) -> Measurement:
    """Median over random directions d of the distance at which L(w ± a d) has risen by ``rise``.

    Each filter of d has the norm of the weights' own filter, so that a is relative; biases and
    normalisation do not move, as in landscapes. A direction's distance is the mean of its two
    sides. The volume of the basin is dominated by
    its longest radii and can't be had from few directions in many dimensions; the median radius
    can. To second order it is √(b² + 2 q rise)/q with b = ⟨∇L, d⟩, q = dᵀHd.

    Args:
        context: the problem.
        rise: of the mean loss over its clean value, nats.
        directions: at least 2.
        tolerance: relative width of the bracket at which bisection stops; the distance is
            interpolated in it.

    Returns:
        A pure number, larger when flatter; the error is that of the directions.
        ``details["quantiles"]``: of the directions' distances (``None``: beyond the limit), and
        ``details["unreached"]``: the share of sides along which the loss does not rise so far.

    Raises:
        InputError: settings out of range, or a loss that does not rise so far along half of the
            directions, or that does at the smallest distance along one.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.volume(problem, directions=4).value, 2)
        0.25

    Reference:
        Huang et al. 2020 (arXiv 1906.03291), section 4, for the idea; Li et al. 2018 (arXiv
        1712.09913), section 4, for the directions.
    """
    if not 0 < rise < math.inf or directions < 2 or not 0 < tolerance < math.inf:
        raise InputError(
            f"rise {rise} and tolerance {tolerance} should be > 0 and finite, directions"
            f" {directions} ≥ 2"
        )
    problem, generator = context.problem, context.generator("volume")
    noise, start_loss = Noise(law="sphere", scale="filter"), problem.mean(context.clean_losses)
    sides = np.empty((directions, 2))
    with context.moved() as clean:
        for row in range(directions):
            direction = [
                noise.sample(weight, generator, filters).mul_(weight.ndim >= 2)
                for weight, filters in zip(clean, context.filters, strict=True)
            ]
            for column, sign in enumerate((1, -1)):
                after = functools.partial(_loss_at, context, clean, direction, sign)
                bracket = crossing(
                    after, start_loss + rise, start=START, limit=LIMIT, tolerance=tolerance
                )
                if bracket.low == 0:
                    raise InputError(
                        f"the loss rises by more than {rise} within {bracket.high:g} times the"
                        " weights, the smallest distance tried: choose a larger rise"
                    )
                sides[row, column] = bracket.crossed
    distances = sides.mean(axis=1)
    settings = {
        "rise": rise,
        "directions": directions,
        "tolerance": tolerance,
        "law": "sphere",
        "scale": "filter",
        "seed": context.seed,
        "error": "draws",
    }
    found = of_median(distances.tolist(), settings)
    if not math.isfinite(found.value):
        raise InputError(
            f"along half of the directions the loss does not rise by {rise} within"
            f" {LIMIT:g} times the weights: choose a smaller rise"
        )
    levels = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    quantiles = np.quantile(distances, levels, method="inverted_cdf").tolist()
    details = {
        "quantiles": {
            str(level): value if math.isfinite(value) else None
            for level, value in zip(levels, quantiles, strict=True)
        },
        "unreached": float(np.isinf(sides).mean()),
    }
    return dataclasses.replace(found, details=details)


def _loss_at(
    context: MetricContext,
    clean: Sequence[Tensor],
    direction: Sequence[Tensor],
    sign: int,
    distance: float,
) -> float:
    context.put(clean, direction, sign * distance)
    return context.problem.mean(context.losses())
