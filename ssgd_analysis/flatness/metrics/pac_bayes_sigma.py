"""PAC-Bayes sharpness: how much weight noise the training accuracy bears."""

import math
from collections import Counter

import numpy as np

from ssgd_analysis.batch import pair
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.crossing import crossing
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.flatness.perturbed import pairs, weight_noise

START, LIMIT = 0.1, 1e3  # of the noise scale
STEP = 2**0.25  # for the slope at the crossing


@metric(
    "1/σ² of the largest relative weight noise that costs 0.1 of the accuracy",
    invariant_to=("layer", "neuron", "batchnorm", "permutation", "logit"),
    needs=("class labels (or of=loss)",),
)
def pac_bayes_sigma(
    context: MetricContext,
    *,
    target: float = 0.1,
    scale: str = "weight",
    of: str = "accuracy",
    draws: int = 10,
    tolerance: float = 0.01,
) -> Measurement:
    """1/σ², σ the noise scale at which the mean accuracy has dropped by ``target``.

    Gaussian noise, antithetic pairs, the same raw draws at every σ and for every model; σ by
    bisection. If the drop is not monotone in σ this is one of its crossings of the target.

    Args:
        context: the problem, usually of the training split.
        target: mean drop of the accuracy, a share; or mean rise of the loss, nats.
        scale: ``weight`` (or ``element``), magnitude-aware: z_i ~ N(0, σ² w_i²); ``none``,
            isotropic: z_i ~ N(0, σ²); or ``filter``, ``layer``.
        of: ``accuracy`` or ``loss``.
        draws: antithetic pairs, at least 2.
        tolerance: relative width of the bracket of σ at which bisection stops.

    Returns:
        1/σ² (larger when sharper); the error is that of the draws, by the slope of the mean drop
        in log σ. ``settings["sigma"]``: σ, a standard deviation, of z_i or of z_i/|w_i|: the
        (geometric) middle of the bracket.

    Raises:
        InputError: settings out of range, a drop that is never reached, or not left, or no
            accuracy that could drop so far: no class labels, or an accuracy less than twice the
            target above the commonest class's share, as of an untrained network.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.pac_bayes_sigma(problem, of="loss", draws=4).value, 2)
        27.41

    Reference:
        Dziugaite et al. 2020 (arXiv 2010.11924), PAC-Bayes flatness measures; Jiang et al. 2020
        (arXiv 1912.02178), eqs. 53 and 57. Without their ε² added to w², so that it is invariant
        to rescaling. (Their code uses the square of σ as standard deviation; this does not.)
    """
    if not 0 < target < math.inf or draws < 2 or not 0 < tolerance < math.inf:
        raise InputError(
            f"target {target} and tolerance {tolerance} should be > 0 and finite, draws {draws} ≥ 2"
        )
    if of not in ("accuracy", "loss"):
        raise InputError(f"of '{of}' should be accuracy or loss")
    if of == "accuracy":
        _check_accuracy(context, target)
    noise = weight_noise("gaussian", scale)

    def drops(sigma: float) -> np.ndarray:
        try:
            found = pairs(context, noise, sigma, draws)
        except WorkError:  # noise so large that the loss is not finite is more than it bears
            return np.full(draws, np.inf)
        return found.even if of == "loss" or found.drops is None else found.drops

    # rounding must not tip a drop that is the target, such as 1 of 10 examples
    bracket = crossing(
        lambda sigma: float(drops(sigma).mean()),
        target * (1 + 1e-9),
        start=START,
        limit=LIMIT,
        tolerance=tolerance,
    )
    sigma = bracket.middle
    if not 0 < sigma < math.inf:
        raise InputError(
            f"the mean drop of the {of} does not cross {target} between the"
            f" smallest and the largest noise tried (sigma up to {LIMIT:g}): choose another target"
        )
    low, high = (float(drops(sigma * step).mean()) for step in (1 / STEP, STEP))
    slope = (high - low) / (2 * math.log(STEP))  # of the mean drop by log σ
    settings = {
        "target": target,
        "scale": noise.scale,
        "of": of,
        "draws": draws,
        "tolerance": tolerance,
        "law": "gaussian",
        "sigma": sigma,
        "seed": context.seed,
        "error": "draws",
    }
    value = 1 / sigma**2
    if not 0 < slope < math.inf:
        return Measurement(value, None, settings)
    # a draw that drops more than the mean would have its crossing earlier: to first order
    here = drops(bracket.low)  # made already, as the middle is not
    return of_draws((value * (1 + 2 * (here - here.mean()) / slope)).tolist(), settings)


def _check_accuracy(context: MetricContext, target: float) -> None:
    """Refuse to measure by an accuracy that is not there, or can't drop so far."""
    rights = context.clean_scores[1]
    if rights is None:
        raise InputError("the targets are not class labels, so there is no accuracy: use of=loss")
    labels: Counter[int] = Counter()
    for index, batch in enumerate(context.problem.batches):
        terms, targets = context.problem.batch_terms(index), pair(batch)[1].reshape(-1)
        counts = targets >= 0
        if terms is not None and terms.ignored is not None:
            counts &= targets != terms.ignored
        labels.update(targets[counts].tolist())
    accuracy, chance = context.problem.label_mean(rights), max(labels.values()) / labels.total()
    if accuracy < chance + 2 * target:
        raise InputError(
            f"the accuracy {accuracy:.3g} should exceed the most common class's share {chance:.3g}"
            f" by twice the target {target}: use a smaller target or of=loss"
        )
