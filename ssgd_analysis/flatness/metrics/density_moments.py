"""Moments of the distribution of the Hessian's eigenvalues."""

import dataclasses

import numpy as np

from ssgd_analysis.curvature import Survey
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import squares, surveyed

MOMENTS = 4


@metric(
    "mean squared eigenvalue of the Hessian; moments 1 to 4",
    invariant_to=("permutation",),
)
def density_moments(context: MetricContext, *, probes: int = 32) -> Measurement:
    """The second moment of the spectral distribution, (1/P) Σ λ² = ‖H‖²_F / P; and its first four.

    Details hold (1/P) Σ λᵏ for k = 1 to 4 with standard errors over their probes. The first two
    come from the trace's probes, the others from the density's Lanczos runs, whose s steps are
    exact for a probe's first 2s − 1 moments; the eigenpairs found count as they are, right to the
    square of their tolerance.

    Args:
        context: the problem.
        probes: of the first two moments, at least 2; the survey's 32 cost nothing more.

    Returns:
        Squared nats per fourth power of a weight unit; the error is that of the probes.

    Raises:
        InputError: fewer than 2 probes.
        WorkError: a product is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.density_moments(problem).value, 3)  # (1² + 4²) / 2
        8.5

    Reference:
        Ubaru, Chen and Saad 2017; Golub and Meurant 2010, on exactness of the quadrature.
    """
    if probes < 2:
        raise InputError(f"probes {probes} should be at least 2, to give a standard error")
    size, survey = context.problem.n_parameters, surveyed(context)
    tables = [survey.traces, squares(context, probes), *_higher(survey)]
    moments = [of_draws((table / size).tolist(), {}) for table in tables]
    details = {
        "moments": [moment.value for moment in moments],
        "stderr": [moment.stderr for moment in moments],
        "probes": [len(table) for table in tables],
    }
    settings = {"probes": len(tables[1]), "seed": context.seed, "error": "probes"}
    return dataclasses.replace(moments[1], settings=settings, details=details)


def _higher(survey: Survey) -> list[np.ndarray]:
    """Each run's Σ λᵏ from k = 3 on, as far as all runs are exact; shapes (probes,)."""
    runs, eigenvalues = survey.runs, np.array(survey.density.spikes)
    depth = min(
        MOMENTS if exact else 2 * len(nodes) - 1
        for nodes, exact in zip(runs.nodes, runs.exact, strict=True)
    )
    return [
        (eigenvalues**order).sum()
        + runs.lengths
        * [weights @ nodes**order for nodes, weights in zip(runs.nodes, runs.weights, strict=True)]
        for order in range(3, min(depth, MOMENTS) + 1)
    ]
