"""The share of negative eigenvalues of the Hessian."""

import dataclasses
import math

import numpy as np

from ssgd_analysis.curvature.density import shares
from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.surveyed import surveyed


@metric
def negative_mass(bench: Bench) -> Measurement:
    """The share of eigenvalues below −c, c a thousandth of the largest |λ|.

    Zero at a minimum, larger at a saddle: it says what kind of point this is rather than how flat
    it is. From the density's Lanczos runs, a node of which stands for all eigenvalues around it:
    details hold the 95% interval over the probes, and with what the nodes leave open.

    Args:
        bench: the problem.

    Returns:
        A share, 0 to 1; the error is that of the probes alone, see ``lowest`` and ``highest`` of
        the details for the rest.

    Raises:
        WorkError: a product is not finite.

    Reference:
        Ghorbani et al. 2019 (arXiv 1901.10159); bounds by Chebyshev, Markov and Stieltjes, see
        :func:`ssgd_analysis.curvature.spectral_density`.
    """
    found = surveyed(bench)
    known = np.array(found.density.spikes)
    free = bench.problem.n_parameters - len(known)
    each = shares(found.runs, known, free, -math.inf, -found.density.threshold)[:, 0]
    share = found.density.negative
    details = {
        "threshold": found.density.threshold,
        "low": share.low,
        "high": share.high,
        "lowest": share.lowest,
        "highest": share.highest,
    }
    settings = {
        "probes": found.density.probes,
        "steps": found.density.steps,
        "seed": bench.seed,
        "error": "probes",
    }
    return dataclasses.replace(of_draws(each.tolist(), settings), details=details)
